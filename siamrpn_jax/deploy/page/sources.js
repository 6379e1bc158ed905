// Where frames come from: each source yields {width, height, time, draw(context)}.

import { ALL_FORMATS, BlobSource, Input, VideoSampleSink } from "./mediabunny/mediabunny.min.mjs";

// Every frame of a film file, in order.
export async function* film(file) {
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS });
  const track = await input.getPrimaryVideoTrack().catch(() => null);
  if (!track) throw new Error(`${file.name}: no film that can be read`);
  if (!(await track.canDecode())) {
    throw new Error(`${file.name}: this browser cannot decode ${(await track.getCodec()) ?? "its codec"}`);
  }
  for await (const sample of new VideoSampleSink(track).samples()) {
    try {
      yield {
        width: sample.displayWidth,
        height: sample.displayHeight,
        time: sample.timestamp,
        draw: (context) => sample.draw(context, 0, 0),
      };
    } finally {
      sample.close();
    }
  }
}

// Image files in the order of their names, numbers by value.
export async function* pictures(files) {
  const order = new Intl.Collator("en", { numeric: true });
  const sorted = [...files].sort((a, b) => order.compare(a.name, b.name));
  for (const [index, file] of sorted.entries()) {
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
      throw new Error(`${file.name}: no image that can be read`);
    });
    try {
      const { width, height } = bitmap;
      yield { width, height, time: index / 25, draw: (context) => context.drawImage(bitmap, 0, 0) };
    } finally {
      bitmap.close();
    }
  }
}

// The newest picture of the camera, whenever one is asked for.
export async function* camera() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const video = document.createElement("video");
  try {
    Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    while (stream.active) {
      await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
      const [width, height] = [video.videoWidth, video.videoHeight];
      yield { width, height, time: video.currentTime, live: true, draw: (context) => context.drawImage(video, 0, 0) };
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
  }
}
