// What a manifest promises and says of itself, in words: as fl_client/webcam/badge.py.

// { badge, alarm, proof, version, sentence, statement, facts: { version, key, hash } } of a model that verify.js returned.
export function inWords({ manifest, fingerprint, version }) {
  const promises = [manifest.privacy, manifest.client_privacy].filter((one) => one?.private);
  const stated = promises.length ? promises : [manifest.privacy];
  return {
    badge: promises.map(short).join(", ") || "NON-PRIVATE",
    alarm: !promises.length,
    proof: [devices(manifest.cohort), "signature verified"].filter(Boolean).join(", "),
    version: `${manifest.run} · round ${manifest.round} · #${manifest.sequence}`,
    sentence: `Verified in this page: the manifest's signature and the model's SHA-256 hold. ${origin(manifest)}.`,
    statement: stated.flatMap((one) => [one.statement, ...one.non_private.map((text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`)]).join(" "),
    facts: {
      version: `${version}, published ${manifest.created.slice(0, 16).replace("T", " ")} UTC`,
      key: fingerprint.replace(/(.{4})(?=.)/g, "$1 "),
      hash: manifest.files["model.onnx"].sha256,
    },
  };
}

// Epsilon is rounded up, never down.
function short({ unit, epsilon }) {
  const text = epsilon.toFixed(2);
  return `${unit}-level epsilon ${Number(Number(text) < epsilon ? (epsilon + 0.005).toFixed(2) : text)}`;
}

function origin({ run, round, cohort }) {
  const by = cohort.accepted ? `, made of the updates of ${devices(cohort)}` : "";
  return `It is of run ${run}, round ${round}${by}`;
}

function devices({ asked, accepted, secure }) {
  if (!accepted) return "";
  return `${accepted} of ${asked} device${asked === 1 ? "" : "s"}${secure ? ", only their sum seen" : ""}`;
}
