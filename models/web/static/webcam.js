// The browser's camera: on, off, which one, and in one sentence why not.

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
const WITHOUT = "a picture works without it.";
const WHY = {
  NotAllowedError: `The camera was not allowed: allow it beside the page's address and start again; ${WITHOUT}`,
  NotFoundError: `No camera was found; ${WITHOUT}`,
  OverconstrainedError: `This camera is not there any more; choose another one.`,
  NotReadableError: `The camera is there and gives no picture, perhaps because another program uses it; close that and start again.`,
};
const OTHERWISE = `The camera cannot be used; ${WITHOUT}`;
const INSECURE = `Browsers give a camera to pages loaded by HTTPS, or from this machine, alone; ${WITHOUT}`;

// A camera that cannot be used; its message is for the person.
export class NoCamera extends Error {}

export class Webcam {
  // video: the element that shows it; gone: called when the camera is taken away.
  constructor(video, gone) {
    Object.assign(this, { video, gone, stream: null });
  }

  // Raises NoCamera.
  async start(chosen) {
    this.stop();
    if (!navigator.mediaDevices) throw new NoCamera(INSECURE);
    const which = chosen ? { deviceId: { exact: chosen } } : { facingMode: "user" };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...which }, audio: false });
      this.video.srcObject = stream;
      await this.video.play();
    } catch (error) {
      for (const track of stream?.getTracks() ?? []) track.stop();
      this.video.srcObject = null;
      throw new NoCamera(WHY[error.name] ?? OTHERWISE);
    }
    this.stream = stream;
    for (const track of stream.getTracks()) track.onended = () => this.stream === stream && this.gone();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  // [{ label, deviceId, chosen }], with names once the camera was allowed.
  async all() {
    const found = await navigator.mediaDevices.enumerateDevices();
    const used = this.stream?.getVideoTracks()[0].getSettings().deviceId;
    return found
      .filter(({ kind, deviceId }) => kind === "videoinput" && deviceId)
      .map(({ label, deviceId }, i) => ({ label: label || `Camera ${i + 1}`, deviceId, chosen: deviceId === used }));
  }

  // Calls `seen(time)` for each new frame until the camera stops, with the time when the camera took it, where the browser knows.
  watch(seen) {
    const { video, stream } = this;
    const next = (call) => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(call) : requestAnimationFrame(call));
    const tick = (now, facts) => {
      if (stream !== this.stream || !stream) return;
      next(tick);
      if (video.videoWidth) seen(Math.min(now, facts?.captureTime ?? now));
    };
    next(tick);
  }

  // The frame that is shown: a VideoFrame, or a promise of an ImageBitmap.
  frame() {
    return globalThis.VideoFrame ? new VideoFrame(this.video) : createImageBitmap(this.video);
  }
}
