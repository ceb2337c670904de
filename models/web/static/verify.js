// Is this the model that the publisher signed? SHA-256 and Ed25519 by WebCrypto, before anything is made of the bytes.

import { ask, Refused } from "./ask.js";

const CONTEXT = "emofl-manifest-v1";
const LIMITS = { manifest: 1 << 20, file: 64 << 20 };
const AGAIN = 60_000;
const VERSION = /^[0-9]{6,12}-r[0-9]{4,12}$/;

const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");

export async function sha256(bytes) {
  return hex(await crypto.subtle.digest("SHA-256", bytes));
}

// The publisher's key from PEM (SubjectPublicKeyInfo): { key, fingerprint }, the fingerprint of its 32 raw bytes.
export async function publisherKey(pem) {
  const found = /^-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*$/.exec(pem);
  if (!found) throw new Refused("The publisher's key is not in PEM format.");
  const der = Uint8Array.from(atob(found[1].replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
  if (!globalThis.crypto?.subtle) throw new Refused("This page was not loaded securely, so nothing can be verified: use HTTPS.");
  try {
    const key = await crypto.subtle.importKey("spki", der, { name: "Ed25519" }, true, ["verify"]);
    return { key, fingerprint: await sha256(await crypto.subtle.exportKey("raw", key)) };
  } catch (error) {
    if (error.name === "NotSupportedError") throw new Refused("This browser cannot check Ed25519 signatures; a newer one can.");
    throw new Refused("The publisher's key is not an Ed25519 key.");
  }
}

// The manifest in `content`, once its signature holds; its version's name is the one it was asked for by.
export async function verifiedManifest(content, signature, publisher, version) {
  const context = new TextEncoder().encode(CONTEXT + "\0");
  const signed = new Uint8Array(context.length + content.byteLength);
  signed.set(context);
  signed.set(new Uint8Array(content), context.length);
  const holds = await crypto.subtle.verify({ name: "Ed25519" }, publisher.key, signature, signed);
  if (!holds) throw new Refused("The model is refused: its manifest is not signed by the publisher's key.");
  const manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  const name = `${String(manifest.sequence).padStart(6, "0")}-r${String(manifest.round).padStart(4, "0")}`;
  if (name !== version) throw new Refused(`The model is refused: it is version ${name}, and ${version} was asked for.`);
  const how = manifest.preprocessing;
  if (manifest.schema_version !== 1 || how.colour !== "grey" || how.border !== "replicate" || how.resize !== "area-or-linear") {
    throw new Refused("The model is refused: it needs a newer page than this one.");
  }
  return manifest;
}

// Raises unless `content` is exactly the file that the manifest names.
export async function checkFile(manifest, name, content) {
  const entry = manifest.files[name];
  if (content.byteLength !== entry.bytes || (await sha256(content)) !== entry.sha256) {
    throw new Refused(`The model is refused: ${name} is not what was signed.`);
  }
}

async function bytes(path, limit, say) {
  const answer = await ask(path, say);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`answer ${answer.status}`);
  const content = await answer.arrayBuffer();
  if (content.byteLength > limit) throw new Refused("The model is refused: it is too large.");
  return { content, version: new URL(answer.url).pathname.split("/").at(-2) };
}

// Reads the newest model from this page's own server. Remembers publisher and number, so that neither changes unnoticed.
export class Models {
  // trusted: a fingerprint, or null to trust the first key met and no other from then on; memory: { get, set, clear };
  // say: gets a sentence while the server is busy.
  constructor(trusted, memory, say) {
    Object.assign(this, { trusted, memory, say, asked: null, last: null, refused: null });
  }

  // Trust the next key that is met, as if this browser had met none.
  forget() {
    this.memory.clear();
    Object.assign(this, { last: null, refused: null });
  }

  // What `newer` returned is in use, and is not returned again.
  used() {
    Object.assign(this, { last: this.asked, refused: null });
  }

  // What `newer` found cannot be used, whether it raised this error or running it did: for a minute it raises it at once.
  refuse(error) {
    if (error !== this.refused?.error) this.refused = { version: this.asked, error, until: Date.now() + AGAIN };
  }

  async publisher() {
    const pem = await bytes("/models/publisher.pub", 4096, this.say);
    if (!pem) throw new Refused("This server shows no publisher's key.");
    const publisher = await publisherKey(new TextDecoder().decode(pem.content));
    const known = this.trusted ?? this.memory.get("emofl-publisher");
    if (known && known !== publisher.fingerprint) {
      throw new Refused("The model is refused: it is signed by another key than the one this browser trusts.");
    }
    return publisher;
  }

  // A model newer than the one in use: { manifest, onnx, fingerprint, version, bytes }; null when there is none.
  async newer() {
    this.asked = null;
    const found = await bytes("/models/latest/manifest.json", LIMITS.manifest, this.say);
    if (!found || found.version === this.last) return null;
    this.asked = found.version;
    if (this.refused?.version === found.version && Date.now() < this.refused.until) throw this.refused.error;
    if (!VERSION.test(found.version)) throw new Refused("The model is refused: its version has no proper name.");
    const asked = [this.publisher(), bytes(`/models/${found.version}/manifest.sig`, 64, this.say)];
    const [publisher, signature] = await Promise.all(asked);
    if (!signature) return null;
    const manifest = await verifiedManifest(found.content, signature.content, publisher, found.version);
    const newest = Number(this.memory.get(`emofl-newest-${publisher.fingerprint}`) ?? 0);
    if (manifest.sequence < newest) {
      throw new Refused(`The model is refused: it is number ${manifest.sequence}, and this browser has seen number ${newest}.`);
    }
    const onnx = await bytes(`/models/${found.version}/model.onnx`, LIMITS.file, this.say);
    if (!onnx) return null;
    await checkFile(manifest, "model.onnx", onnx.content);
    this.memory.set("emofl-publisher", publisher.fingerprint);
    this.memory.set(`emofl-newest-${publisher.fingerprint}`, String(manifest.sequence));
    return { manifest, onnx: onnx.content, fingerprint: publisher.fingerprint, version: found.version };
  }
}
