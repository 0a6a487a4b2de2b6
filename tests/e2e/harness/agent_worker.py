"""A worker of LiveKit's agents package, whose agent turns round what it is sent. JSON lines: wishes in, events out."""

import asyncio
import json
import sys

from livekit.agents import AgentServer, JobContext, JobExecutorType


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


wishes = json.loads(sys.stdin.readline())
server = AgentServer(
    ws_url=wishes["url"],
    api_key=wishes["key"],
    api_secret=wishes["secret"],
    # In this process, so that it can say what happens.
    job_executor_type=JobExecutorType.THREAD,
    load_fnc=lambda: 0.1,
    port=0,
    host="127.0.0.1",
)


@server.rtc_session(agent_name=wishes["agent"])
async def turn_round(ctx: JobContext):
    tasks = set()

    def received(packet):
        sending = ctx.room.local_participant.publish_data(packet.data[::-1], reliable=True, topic="turned")
        task = asyncio.create_task(sending)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    ctx.room.on("data_received", received)
    await ctx.connect()
    say("joined", room=ctx.room.name, metadata=ctx.job.metadata, identity=ctx.room.local_participant.identity)

    async def end(*_):
        say("ended")

    # The job goes on until the agent is out of the room.
    ctx.add_shutdown_callback(end)


server.on("worker_registered", lambda *_: say("registered"))
asyncio.run(server.run(devmode=True))
