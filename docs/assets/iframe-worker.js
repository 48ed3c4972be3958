// A page from file:// may not start a worker; there a hidden frame runs the search instead.
"use strict";

class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.appendChild(this.frame);
    const inner = this.frame.contentWindow;
    inner.document.open();
    inner.document.write("<!doctype html>");
    inner.document.close();
    inner.importScripts = (...urls) => Promise.all(urls.map((each) => this.load(each)));
    // What the script posts goes to whoever made this worker.
    inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    this.addEventListener("message", (event) => this.onmessage && this.onmessage(event));
    this.ready = this.load(url);
  }

  load(url) {
    return new Promise((resolve, reject) => {
      const script = this.frame.contentDocument.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = reject;
      this.frame.contentDocument.head.appendChild(script);
    });
  }

  postMessage(data) {
    const { contentWindow } = this.frame;
    this.ready.then(() => contentWindow.dispatchEvent(new MessageEvent("message", { data })));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
