"""A participant with LiveKit's Python package: see outside.mjs for what is said on stdin and stdout."""

import asyncio
import json
import sys

import numpy as np
from livekit import rtc

PALETTE = {}  # colour name: (r, g, b), from the wishes
TOLERANCE = 0
WIDTH, HEIGHT, FPS = 320, 180, 15
RATE = 48_000
TONE_WINDOW = 9_600  # samples: 5 Hz a bin
FORMS = {"single": True, "dual": False}


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def paint(colour, counter):
    """The picture of pictures.js as RGBA rows."""
    picture = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    picture[:] = (*PALETTE[colour], 255)
    top, bottom = HEIGHT * 3 // 8, HEIGHT * 3 // 8 + HEIGHT // 4
    for bit in range(8):
        left = WIDTH * (bit + 1) // 10
        shade = 255 if counter >> (7 - bit) & 1 else 0
        picture[top:bottom, left : left + WIDTH // 10, :3] = shade
    return picture


def read(frame):
    """(colour name, counter) of a received frame."""
    rgba = frame.convert(rtc.VideoBufferType.RGBA)
    pixels = np.frombuffer(rgba.data, np.uint8).reshape(rgba.height, rgba.width, 4)[:, :, :3]
    height, width = pixels.shape[:2]
    mean = pixels[: height // 4].reshape(-1, 3).mean(axis=0)
    name = min(PALETTE, key=lambda one: np.abs(mean - np.array(PALETTE[one])).max())
    if np.abs(mean - np.array(PALETTE[name])).max() > TOLERANCE:
        name = f"rgb({mean.round().tolist()})"
    counter = 0
    for bit in range(8):
        x, y = int(width * (bit + 1.5) / 10), height // 2
        counter = counter << 1 | int(pixels[y - 2 : y + 3, x - 2 : x + 3].mean() > 127)
    return name, counter


async def send_pictures(source, colour):
    counter = 0
    while True:
        counter = (counter + 1) & 0xFF
        source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.RGBA, paint(colour, counter).tobytes()))
        await asyncio.sleep(1 / FPS)


async def send_tone(source, hz):
    position = 0
    samples = RATE // 50
    while True:
        at = np.arange(position, position + samples) / RATE
        wave = (np.sin(2 * np.pi * hz * at) * 0.3 * 32767).astype(np.int16)
        position += samples
        await source.capture_frame(rtc.AudioFrame(wave.tobytes(), RATE, 1, samples))


async def watch(track, who):
    """Reports the colour with how many values its counter took, at every fifth new one."""
    seen, colour, frames = set(), None, 0
    async for item in rtc.VideoStream(track):
        name, counter = read(item.frame)
        frames += 1
        if name != colour:
            colour, seen = name, set()
        seen.add(counter)
        if len(seen) % 5 == 0 or frames == 1:
            say("picture", ms=since(), who=who, colour=colour, moving=len(seen) >= 5, width=item.frame.width, height=item.frame.height)


async def listen(track, who):
    """Reports the loudest frequency of every 200 ms, rounded to 10 Hz, when there is sound."""
    kept = np.empty(0, np.int16)
    async for item in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
        kept = np.concatenate([kept, np.frombuffer(item.frame.data, np.int16)])
        if len(kept) < TONE_WINDOW:
            continue
        window, kept = kept[:TONE_WINDOW] / 32768, kept[TONE_WINDOW:]
        if np.sqrt((window**2).mean()) > 0.02:
            loudest = np.abs(np.fft.rfft(window * np.hanning(TONE_WINDOW))).argmax() * RATE / TONE_WINDOW
            say("tone", who=who, hz=round(loudest / 10) * 10)


BEGAN = 0.0  # of the event loop's clock: when it began to connect


def since():
    return round((asyncio.get_running_loop().time() - BEGAN) * 1000)


async def main():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    wishes = json.loads(await reader.readline())
    global TOLERANCE
    TOLERANCE = wishes["tolerance"]
    PALETTE.update(wishes["palette"])

    room = rtc.Room()
    tasks = set()

    def start(work):
        task = loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    @room.on("track_subscribed")
    def _(track, publication, participant):
        say("subscribed", who=participant.identity, kind="video" if track.kind == rtc.TrackKind.KIND_VIDEO else "audio")
        start(watch(track, participant.identity) if track.kind == rtc.TrackKind.KIND_VIDEO else listen(track, participant.identity))

    room.on("track_unsubscribed", lambda track, publication, who: say("unsubscribed", who=who.identity))
    room.on("track_muted", lambda who, publication: say("muted", who=who.identity))
    room.on("track_unmuted", lambda who, publication: say("unmuted", who=who.identity))
    room.on("participant_connected", lambda who: say("joined", who=who.identity))
    room.on("participant_disconnected", lambda who: say("left", who=who.identity))
    room.on("data_received", lambda packet: say(
        "data", who=packet.participant.identity if packet.participant else None, text=packet.data.decode(),
        topic=packet.topic or "", reliable=packet.kind == rtc.DataPacketKind.KIND_RELIABLE))
    room.on("disconnected", lambda reason: say("disconnected", reason=rtc.DisconnectReason.Name(reason)))

    async def read_text(stream, who):
        say("text", who=who, text=await stream.read_all())

    room.register_text_stream_handler("text", lambda stream, who: start(read_text(stream, who)))

    options = rtc.RoomOptions(single_peer_connection=FORMS.get(wishes.get("form")))
    if wishes.get("relay"):
        options.rtc_config = rtc.RtcConfiguration(ice_transport_type=rtc.IceTransportType.TRANSPORT_RELAY)
    global BEGAN
    BEGAN = loop.time()
    await room.connect(wishes["url"], wishes["token"], options)
    ms = since()
    me = room.local_participant

    @me.register_rpc_method("reverse")
    async def _(call):
        return call.payload[::-1]

    say("connected", others=sorted(room.remote_participants), ms=ms)
    if "first" in wishes:
        await me.publish_data(wishes["first"])
        say("sent", ms=since())

    if "colour" in wishes:
        source = rtc.VideoSource(WIDTH, HEIGHT)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        await me.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False))
        start(send_pictures(source, wishes["colour"]))
    if "hz" in wishes:
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        await me.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
        start(send_tone(source, wishes["hz"]))
    say("published")

    while line := await reader.readline():
        command = json.loads(line)
        name, result = command["do"], None
        if name == "leave":
            break
        if name == "data":
            await me.publish_data(command["text"], reliable=command.get("reliable", True), topic=command.get("topic", ""))
        elif name == "text":
            await me.send_text(command["text"], topic="text")
        elif name == "ciphers":
            stats = await room.get_rtc_stats()
            transports = [one.transport.transport for one in [*stats.publisher_stats, *stats.subscriber_stats] if one.HasField("transport")]
            result = [transport.srtp_cipher for transport in transports if transport.packets_sent]
        elif name == "call":
            result = await me.perform_rpc(destination_identity=command["to"], method=command["method"], payload=command["payload"])
        say("done", command=name, result=result)
    await room.disconnect()
    for task in tasks:
        task.cancel()


asyncio.run(main())
