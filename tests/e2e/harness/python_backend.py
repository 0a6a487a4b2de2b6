"""A backend with LiveKit's Python server package: reads one JSON object of wishes, prints one of what it was told.

With `room`: every call of the room service on it, in which alice publishes `track` and bob is there to be put out.
With `webhooks` ([{token, body}]): the events, as the package's receiver verifies them.
"""

import asyncio
import json
import sys

from livekit import api


async def call_everything(wishes):
    room, track = wishes["room"], wishes["track"]
    said = {}
    async with api.LiveKitAPI(wishes["url"], wishes["key"], wishes["secret"]) as lk:
        await lk.room.create_room(api.CreateRoomRequest(name=room))
        rooms = await lk.room.list_rooms(api.ListRoomsRequest(names=[room]))
        assert [it.name for it in rooms.rooms] == [room], rooms
        listed = await lk.room.list_participants(api.ListParticipantsRequest(room=room))
        said["participants"] = sorted(it.identity for it in listed.participants)
        alice = api.RoomParticipantIdentity(room=room, identity="alice")
        assert (await lk.room.get_participant(alice)).tracks[0].sid == track
        try:
            await lk.room.get_participant(api.RoomParticipantIdentity(room=room, identity="nobody"))
        except api.TwirpError as error:
            said["unknown"] = error.code
        muted = await lk.room.mute_published_track(
            api.MuteRoomTrackRequest(room=room, identity="alice", track_sid=track, muted=True)
        )
        assert muted.track.muted
        await lk.room.update_subscriptions(
            api.UpdateSubscriptionsRequest(room=room, identity="bob", track_sids=[track], subscribe=False)
        )
        await lk.room.send_data(
            api.SendDataRequest(room=room, data=b"from python", topic="table", destination_identities=["bob"])
        )
        named = await lk.room.update_participant(
            api.UpdateParticipantRequest(room=room, identity="bob", name="Robert", attributes={"a": "b"})
        )
        assert (named.name, dict(named.attributes)) == ("Robert", {"a": "b"}), named
        changed = await lk.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room, metadata="new"))
        assert changed.metadata == "new"
        forward = api.ForwardParticipantRequest(room=room, identity="bob", destination_room=f"{room}-elsewhere")
        await lk.room.forward_participant(forward)
        elsewhere = await lk.room.list_participants(api.ListParticipantsRequest(room=f"{room}-elsewhere"))
        said["forwarded"] = [it.identity for it in elsewhere.participants]
        await lk.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(room=room, agent_name="from python"))
        said["dispatches"] = [it.agent_name for it in await lk.agent_dispatch.list_dispatch(room)]
        await lk.room.remove_participant(api.RoomParticipantIdentity(room=room, identity="bob"))
        await lk.room.delete_room(api.DeleteRoomRequest(room=room))
        assert not (await lk.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
    return said


def verify(wishes):
    receiver = api.WebhookReceiver(api.TokenVerifier(wishes["key"], wishes["secret"]))
    events = [receiver.receive(it["body"], it["token"]) for it in wishes["webhooks"]]
    try:
        receiver.receive(wishes["webhooks"][0]["body"] + " ", wishes["webhooks"][0]["token"])
        raise AssertionError("a changed body was taken")
    except AssertionError:
        raise
    except Exception:
        pass
    return {"events": [event.event for event in events], "ids": [event.id for event in events]}


wishes = json.loads(sys.stdin.read())
print(json.dumps(verify(wishes) if "webhooks" in wishes else asyncio.run(call_everything(wishes))))
