//! Fields of LiveKit's messages that are written as JSON. Made by `tests/json_schema.rs`: not to be edited.

use super::render::{Enum, Kind::*, Message, many, map, maybe, one};

static AUDIO_CHANNEL: Enum = Enum(&[
    (0, "AUDIO_CHANNEL_BOTH"),
    (1, "AUDIO_CHANNEL_LEFT"),
    (2, "AUDIO_CHANNEL_RIGHT"),
]);

static AUDIO_CODEC: Enum = Enum(&[
    (0, "DEFAULT_AC"),
    (1, "OPUS"),
    (2, "AAC"),
    (3, "AC_MP3"),
]);

static AUDIO_MIXING: Enum = Enum(&[
    (0, "DEFAULT_MIXING"),
    (1, "DUAL_CHANNEL_AGENT"),
    (2, "DUAL_CHANNEL_ALTERNATE"),
]);

static AUDIO_TRACK_FEATURE: Enum = Enum(&[
    (0, "TF_STEREO"),
    (1, "TF_NO_DTX"),
    (2, "TF_AUTO_GAIN_CONTROL"),
    (3, "TF_ECHO_CANCELLATION"),
    (4, "TF_NOISE_SUPPRESSION"),
    (5, "TF_ENHANCED_NOISE_CANCELLATION"),
    (6, "TF_PRECONNECT_BUFFER"),
]);

static BACKUP_CODEC_POLICY: Enum = Enum(&[
    (0, "PREFER_REGRESSION"),
    (1, "SIMULCAST"),
    (2, "REGRESSION"),
]);

static CLIENT_INFO_CAPABILITY: Enum = Enum(&[
    (0, "CAP_UNUSED"),
    (1, "CAP_PACKET_TRAILER"),
    (2, "CAP_COMPRESSION_DEFLATE_RAW"),
]);

static DATA_TRACK_FRAME_ENCODING_WELL_KNOWN_FRAME_ENCODING: Enum = Enum(&[
    (0, "WELL_KNOWN_FRAME_ENCODING_UNSPECIFIED"),
    (1, "WELL_KNOWN_FRAME_ENCODING_ROS1"),
    (2, "WELL_KNOWN_FRAME_ENCODING_CDR"),
    (3, "WELL_KNOWN_FRAME_ENCODING_PROTOBUF"),
    (4, "WELL_KNOWN_FRAME_ENCODING_FLATBUFFER"),
    (5, "WELL_KNOWN_FRAME_ENCODING_CBOR"),
    (6, "WELL_KNOWN_FRAME_ENCODING_MSGPACK"),
    (7, "WELL_KNOWN_FRAME_ENCODING_JSON"),
]);

static DATA_TRACK_SCHEMA_ENCODING_WELL_KNOWN_SCHEMA_ENCODING: Enum = Enum(&[
    (0, "WELL_KNOWN_SCHEMA_ENCODING_UNSPECIFIED"),
    (1, "WELL_KNOWN_SCHEMA_ENCODING_PROTOBUF"),
    (2, "WELL_KNOWN_SCHEMA_ENCODING_FLATBUFFER"),
    (3, "WELL_KNOWN_SCHEMA_ENCODING_ROS1_MSG"),
    (4, "WELL_KNOWN_SCHEMA_ENCODING_ROS2_MSG"),
    (5, "WELL_KNOWN_SCHEMA_ENCODING_ROS2_IDL"),
    (6, "WELL_KNOWN_SCHEMA_ENCODING_OMG_IDL"),
    (7, "WELL_KNOWN_SCHEMA_ENCODING_JSON_SCHEMA"),
]);

static DISCONNECT_REASON: Enum = Enum(&[
    (0, "UNKNOWN_REASON"),
    (1, "CLIENT_INITIATED"),
    (2, "DUPLICATE_IDENTITY"),
    (3, "SERVER_SHUTDOWN"),
    (4, "PARTICIPANT_REMOVED"),
    (5, "ROOM_DELETED"),
    (6, "STATE_MISMATCH"),
    (7, "JOIN_FAILURE"),
    (8, "MIGRATION"),
    (9, "SIGNAL_CLOSE"),
    (10, "ROOM_CLOSED"),
    (11, "USER_UNAVAILABLE"),
    (12, "USER_REJECTED"),
    (13, "SIP_TRUNK_FAILURE"),
    (14, "CONNECTION_TIMEOUT"),
    (15, "MEDIA_FAILURE"),
    (16, "AGENT_ERROR"),
]);

static EGRESS_SOURCE_TYPE: Enum = Enum(&[
    (0, "EGRESS_SOURCE_TYPE_WEB"),
    (1, "EGRESS_SOURCE_TYPE_SDK"),
]);

static EGRESS_STATUS: Enum = Enum(&[
    (0, "EGRESS_STARTING"),
    (1, "EGRESS_ACTIVE"),
    (2, "EGRESS_ENDING"),
    (3, "EGRESS_COMPLETE"),
    (4, "EGRESS_FAILED"),
    (5, "EGRESS_ABORTED"),
    (6, "EGRESS_LIMIT_REACHED"),
]);

static ENCODED_FILE_TYPE: Enum = Enum(&[
    (0, "DEFAULT_FILETYPE"),
    (1, "MP4"),
    (2, "OGG"),
    (3, "MP3"),
]);

static ENCODING_OPTIONS_PRESET: Enum = Enum(&[
    (0, "H264_720P_30"),
    (1, "H264_720P_60"),
    (2, "H264_1080P_30"),
    (3, "H264_1080P_60"),
    (4, "PORTRAIT_H264_720P_30"),
    (5, "PORTRAIT_H264_720P_60"),
    (6, "PORTRAIT_H264_1080P_30"),
    (7, "PORTRAIT_H264_1080P_60"),
    (8, "PASSTHROUGH"),
]);

static ENCRYPTION_TYPE: Enum = Enum(&[
    (0, "NONE"),
    (1, "GCM"),
    (2, "CUSTOM"),
]);

static IMAGE_CODEC: Enum = Enum(&[
    (0, "IC_DEFAULT"),
    (1, "IC_JPEG"),
]);

static IMAGE_FILE_SUFFIX: Enum = Enum(&[
    (0, "IMAGE_SUFFIX_INDEX"),
    (1, "IMAGE_SUFFIX_TIMESTAMP"),
    (2, "IMAGE_SUFFIX_NONE_OVERWRITE"),
]);

static INGRESS_AUDIO_ENCODING_PRESET: Enum = Enum(&[
    (0, "OPUS_STEREO_96KBPS"),
    (1, "OPUS_MONO_64KBS"),
]);

static INGRESS_INPUT: Enum = Enum(&[
    (0, "RTMP_INPUT"),
    (1, "WHIP_INPUT"),
    (2, "URL_INPUT"),
]);

static INGRESS_STATE_STATUS: Enum = Enum(&[
    (0, "ENDPOINT_INACTIVE"),
    (1, "ENDPOINT_BUFFERING"),
    (2, "ENDPOINT_PUBLISHING"),
    (3, "ENDPOINT_ERROR"),
    (4, "ENDPOINT_COMPLETE"),
]);

static INGRESS_VIDEO_ENCODING_PRESET: Enum = Enum(&[
    (0, "H264_720P_30FPS_3_LAYERS"),
    (1, "H264_1080P_30FPS_3_LAYERS"),
    (2, "H264_540P_25FPS_2_LAYERS"),
    (3, "H264_720P_30FPS_1_LAYER"),
    (4, "H264_1080P_30FPS_1_LAYER"),
    (5, "H264_720P_30FPS_3_LAYERS_HIGH_MOTION"),
    (6, "H264_1080P_30FPS_3_LAYERS_HIGH_MOTION"),
    (7, "H264_540P_25FPS_2_LAYERS_HIGH_MOTION"),
    (8, "H264_720P_30FPS_1_LAYER_HIGH_MOTION"),
    (9, "H264_1080P_30FPS_1_LAYER_HIGH_MOTION"),
]);

static JOB_RESTART_POLICY: Enum = Enum(&[
    (0, "JRP_ON_FAILURE"),
    (1, "JRP_NEVER"),
]);

static JOB_STATUS: Enum = Enum(&[
    (0, "JS_PENDING"),
    (1, "JS_RUNNING"),
    (2, "JS_SUCCESS"),
    (3, "JS_FAILED"),
]);

static JOB_TYPE: Enum = Enum(&[
    (0, "JT_ROOM"),
    (1, "JT_PUBLISHER"),
    (2, "JT_PARTICIPANT"),
]);

static PACKET_TRAILER_FEATURE: Enum = Enum(&[
    (0, "PTF_USER_TIMESTAMP"),
    (1, "PTF_FRAME_ID"),
    (2, "PTF_USER_DATA"),
]);

static PARTICIPANT_INFO_KIND: Enum = Enum(&[
    (0, "STANDARD"),
    (1, "INGRESS"),
    (2, "EGRESS"),
    (3, "SIP"),
    (4, "AGENT"),
    (7, "CONNECTOR"),
    (8, "BRIDGE"),
]);

static PARTICIPANT_INFO_KIND_DETAIL: Enum = Enum(&[
    (0, "CLOUD_AGENT"),
    (1, "FORWARDED"),
    (2, "CONNECTOR_WHATSAPP"),
    (3, "CONNECTOR_TWILIO"),
    (4, "BRIDGE_RTSP"),
    (5, "SIMULATION"),
]);

static PARTICIPANT_INFO_STATE: Enum = Enum(&[
    (0, "JOINING"),
    (1, "JOINED"),
    (2, "ACTIVE"),
    (3, "DISCONNECTED"),
]);

static ROOM_END_REASON: Enum = Enum(&[
    (0, "ROOM_END_UNKNOWN"),
    (1, "ROOM_END_API_DELETE"),
    (2, "ROOM_END_IDLE_TIMEOUT"),
    (3, "ROOM_END_SERVER_SHUTDOWN"),
    (4, "ROOM_END_SUPERSEDED"),
    (5, "ROOM_END_OPEN_FAILED"),
]);

static SEGMENTED_FILE_PROTOCOL: Enum = Enum(&[
    (0, "DEFAULT_SEGMENTED_FILE_PROTOCOL"),
    (1, "HLS_PROTOCOL"),
]);

static SEGMENTED_FILE_SUFFIX: Enum = Enum(&[
    (0, "INDEX"),
    (1, "TIMESTAMP"),
]);

static STREAM_INFO_STATUS: Enum = Enum(&[
    (0, "ACTIVE"),
    (1, "FINISHED"),
    (2, "FAILED"),
]);

static STREAM_PROTOCOL: Enum = Enum(&[
    (0, "DEFAULT_PROTOCOL"),
    (1, "RTMP"),
    (2, "SRT"),
    (3, "WEBSOCKET"),
]);

static TRACK_SOURCE: Enum = Enum(&[
    (0, "UNKNOWN"),
    (1, "CAMERA"),
    (2, "MICROPHONE"),
    (3, "SCREEN_SHARE"),
    (4, "SCREEN_SHARE_AUDIO"),
]);

static TRACK_TYPE: Enum = Enum(&[
    (0, "AUDIO"),
    (1, "VIDEO"),
    (2, "DATA"),
]);

static VIDEO_CODEC: Enum = Enum(&[
    (0, "DEFAULT_VC"),
    (1, "H264_BASELINE"),
    (2, "H264_MAIN"),
    (3, "H264_HIGH"),
    (4, "VP8"),
]);

static VIDEO_LAYER_MODE: Enum = Enum(&[
    (0, "MODE_UNUSED"),
    (1, "ONE_SPATIAL_LAYER_PER_STREAM"),
    (2, "MULTIPLE_SPATIAL_LAYERS_PER_STREAM"),
    (3, "ONE_SPATIAL_LAYER_PER_STREAM_INCOMPLETE_RTCP_SR"),
]);

static VIDEO_QUALITY: Enum = Enum(&[
    (0, "LOW"),
    (1, "MEDIUM"),
    (2, "HIGH"),
    (3, "OFF"),
]);

static AGENT_DISPATCH: Message = Message(&[
    one(1, "id", Text),
    one(2, "agent_name", Text),
    one(3, "room", Text),
    one(4, "metadata", Text),
    one(5, "state", Nested(&AGENT_DISPATCH_STATE)),
    one(6, "restart_policy", Named(&JOB_RESTART_POLICY)),
    one(7, "deployment", Text),
    map(8, "attributes", Text),
]);

static AGENT_DISPATCH_STATE: Message = Message(&[
    many(1, "jobs", Nested(&JOB)),
    one(2, "created_at", Int64),
    one(3, "deleted_at", Int64),
]);

static ALI_OSSUPLOAD: Message = Message(&[
    one(1, "access_key", Text),
    one(2, "secret", Text),
    one(3, "region", Text),
    one(4, "endpoint", Text),
    one(5, "bucket", Text),
]);

static AUDIO_CONFIG: Message = Message(&[
    one(1, "capture_all", Bool),
    many(2, "routes", Nested(&AUDIO_ROUTE)),
]);

static AUDIO_ROUTE: Message = Message(&[
    maybe(1, "track_id", Text),
    maybe(2, "participant_identity", Text),
    maybe(3, "participant_kind", Named(&PARTICIPANT_INFO_KIND)),
    one(4, "channel", Named(&AUDIO_CHANNEL)),
]);

static AZURE_BLOB_UPLOAD: Message = Message(&[
    one(1, "account_name", Text),
    one(2, "account_key", Text),
    one(3, "container_name", Text),
]);

static CODEC: Message = Message(&[
    one(1, "mime", Text),
    one(2, "fmtp_line", Text),
]);

static DATA_TRACK_FRAME_ENCODING: Message = Message(&[
    maybe(1, "well_known", Named(&DATA_TRACK_FRAME_ENCODING_WELL_KNOWN_FRAME_ENCODING)),
    maybe(2, "custom", Text),
]);

static DATA_TRACK_INFO: Message = Message(&[
    one(1, "pub_handle", Uint32),
    one(2, "sid", Text),
    one(3, "name", Text),
    one(4, "encryption", Named(&ENCRYPTION_TYPE)),
    maybe(5, "frame_encoding", Nested(&DATA_TRACK_FRAME_ENCODING)),
    maybe(6, "schema", Nested(&DATA_TRACK_SCHEMA_ID)),
]);

static DATA_TRACK_SCHEMA_ENCODING: Message = Message(&[
    maybe(1, "well_known", Named(&DATA_TRACK_SCHEMA_ENCODING_WELL_KNOWN_SCHEMA_ENCODING)),
    maybe(2, "custom", Text),
]);

static DATA_TRACK_SCHEMA_ID: Message = Message(&[
    one(1, "name", Text),
    one(2, "encoding", Nested(&DATA_TRACK_SCHEMA_ENCODING)),
]);

static DELETE_ROOM_RESPONSE: Message = Message(&[
]);

static DIRECT_FILE_OUTPUT: Message = Message(&[
    one(1, "filepath", Text),
    one(5, "disable_manifest", Bool),
    maybe(2, "s3", Nested(&S3_UPLOAD)),
    maybe(3, "gcp", Nested(&GCPUPLOAD)),
    maybe(4, "azure", Nested(&AZURE_BLOB_UPLOAD)),
    maybe(6, "aliOSS", Nested(&ALI_OSSUPLOAD)),
]);

static EGRESS_INFO: Message = Message(&[
    one(1, "egress_id", Text),
    one(2, "room_id", Text),
    one(13, "room_name", Text),
    one(26, "source_type", Named(&EGRESS_SOURCE_TYPE)),
    one(3, "status", Named(&EGRESS_STATUS)),
    one(10, "started_at", Int64),
    one(11, "ended_at", Int64),
    one(18, "updated_at", Int64),
    maybe(29, "egress", Nested(&START_EGRESS_REQUEST)),
    maybe(30, "replay", Nested(&EXPORT_REPLAY_REQUEST)),
    maybe(4, "room_composite", Nested(&ROOM_COMPOSITE_EGRESS_REQUEST)),
    maybe(14, "web", Nested(&WEB_EGRESS_REQUEST)),
    maybe(19, "participant", Nested(&PARTICIPANT_EGRESS_REQUEST)),
    maybe(5, "track_composite", Nested(&TRACK_COMPOSITE_EGRESS_REQUEST)),
    maybe(6, "track", Nested(&TRACK_EGRESS_REQUEST)),
    many(15, "stream_results", Nested(&STREAM_INFO)),
    many(16, "file_results", Nested(&FILE_INFO)),
    many(17, "segment_results", Nested(&SEGMENTS_INFO)),
    many(20, "image_results", Nested(&IMAGES_INFO)),
    one(9, "error", Text),
    one(22, "error_code", Int32),
    one(21, "details", Text),
    one(23, "manifest_location", Text),
    one(25, "backup_storage_used", Bool),
    one(27, "retry_count", Int32),
    maybe(7, "stream", Nested(&STREAM_INFO_LIST)),
    maybe(8, "file", Nested(&FILE_INFO)),
    maybe(12, "segments", Nested(&SEGMENTS_INFO)),
]);

static ENCODED_FILE_OUTPUT: Message = Message(&[
    one(1, "file_type", Named(&ENCODED_FILE_TYPE)),
    one(2, "filepath", Text),
    one(6, "disable_manifest", Bool),
    maybe(3, "s3", Nested(&S3_UPLOAD)),
    maybe(4, "gcp", Nested(&GCPUPLOAD)),
    maybe(5, "azure", Nested(&AZURE_BLOB_UPLOAD)),
    maybe(7, "aliOSS", Nested(&ALI_OSSUPLOAD)),
]);

static ENCODING_OPTIONS: Message = Message(&[
    one(1, "width", Int32),
    one(2, "height", Int32),
    one(3, "depth", Int32),
    one(4, "framerate", Int32),
    one(5, "audio_codec", Named(&AUDIO_CODEC)),
    one(6, "audio_bitrate", Int32),
    one(7, "audio_frequency", Int32),
    one(8, "video_codec", Named(&VIDEO_CODEC)),
    one(9, "video_bitrate", Int32),
    one(10, "key_frame_interval", Double),
    one(11, "audio_quality", Int32),
    one(12, "video_quality", Int32),
]);

static EXPORT_REPLAY_REQUEST: Message = Message(&[
    one(1, "replay_id", Text),
    one(2, "start_offset_ms", Int64),
    one(3, "end_offset_ms", Int64),
    maybe(4, "template", Nested(&TEMPLATE_SOURCE)),
    maybe(5, "web", Nested(&WEB_SOURCE)),
    maybe(6, "media", Nested(&MEDIA_SOURCE)),
    maybe(7, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(8, "advanced", Nested(&ENCODING_OPTIONS)),
    many(9, "outputs", Nested(&OUTPUT)),
    one(10, "storage", Nested(&STORAGE_CONFIG)),
    many(11, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static FILE_INFO: Message = Message(&[
    one(1, "filename", Text),
    one(2, "started_at", Int64),
    one(3, "ended_at", Int64),
    one(6, "duration", Int64),
    one(4, "size", Int64),
    one(5, "location", Text),
]);

static FILE_OUTPUT: Message = Message(&[
    one(1, "file_type", Named(&ENCODED_FILE_TYPE)),
    one(2, "filepath", Text),
    one(3, "disable_manifest", Bool),
]);

static FILTER_PARAMS: Message = Message(&[
    many(1, "include_events", Text),
    many(2, "exclude_events", Text),
]);

static FORWARD_PARTICIPANT_RESPONSE: Message = Message(&[
]);

static GCPUPLOAD: Message = Message(&[
    one(1, "credentials", Text),
    one(2, "bucket", Text),
    one(3, "proxy", Nested(&PROXY_CONFIG)),
]);

static IMAGE_OUTPUT: Message = Message(&[
    one(1, "capture_interval", Uint32),
    one(2, "width", Int32),
    one(3, "height", Int32),
    one(4, "filename_prefix", Text),
    one(5, "filename_suffix", Named(&IMAGE_FILE_SUFFIX)),
    one(6, "image_codec", Named(&IMAGE_CODEC)),
    one(7, "disable_manifest", Bool),
    maybe(8, "s3", Nested(&S3_UPLOAD)),
    maybe(9, "gcp", Nested(&GCPUPLOAD)),
    maybe(10, "azure", Nested(&AZURE_BLOB_UPLOAD)),
    maybe(11, "aliOSS", Nested(&ALI_OSSUPLOAD)),
]);

static IMAGES_INFO: Message = Message(&[
    one(4, "filename_prefix", Text),
    one(1, "image_count", Int64),
    one(2, "started_at", Int64),
    one(3, "ended_at", Int64),
]);

static INGRESS_AUDIO_ENCODING_OPTIONS: Message = Message(&[
    one(1, "audio_codec", Named(&AUDIO_CODEC)),
    one(2, "bitrate", Uint32),
    one(3, "disable_dtx", Bool),
    one(4, "channels", Uint32),
]);

static INGRESS_AUDIO_OPTIONS: Message = Message(&[
    one(1, "name", Text),
    one(2, "source", Named(&TRACK_SOURCE)),
    maybe(3, "preset", Named(&INGRESS_AUDIO_ENCODING_PRESET)),
    maybe(4, "options", Nested(&INGRESS_AUDIO_ENCODING_OPTIONS)),
]);

static INGRESS_INFO: Message = Message(&[
    one(1, "ingress_id", Text),
    one(2, "name", Text),
    one(3, "stream_key", Text),
    one(4, "url", Text),
    one(5, "input_type", Named(&INGRESS_INPUT)),
    one(13, "bypass_transcoding", Bool),
    maybe(15, "enable_transcoding", Bool),
    one(6, "audio", Nested(&INGRESS_AUDIO_OPTIONS)),
    one(7, "video", Nested(&INGRESS_VIDEO_OPTIONS)),
    one(8, "room_name", Text),
    one(9, "participant_identity", Text),
    one(10, "participant_name", Text),
    one(14, "participant_metadata", Text),
    one(11, "reusable", Bool),
    one(12, "state", Nested(&INGRESS_STATE)),
    maybe(16, "enabled", Bool),
]);

static INGRESS_STATE: Message = Message(&[
    one(1, "status", Named(&INGRESS_STATE_STATUS)),
    one(2, "error", Text),
    one(3, "video", Nested(&INPUT_VIDEO_STATE)),
    one(4, "audio", Nested(&INPUT_AUDIO_STATE)),
    one(5, "room_id", Text),
    one(7, "started_at", Int64),
    one(8, "ended_at", Int64),
    one(10, "updated_at", Int64),
    one(9, "resource_id", Text),
    many(6, "tracks", Nested(&TRACK_INFO)),
]);

static INGRESS_VIDEO_ENCODING_OPTIONS: Message = Message(&[
    one(1, "video_codec", Named(&VIDEO_CODEC)),
    one(2, "frame_rate", Double),
    many(3, "layers", Nested(&VIDEO_LAYER)),
]);

static INGRESS_VIDEO_OPTIONS: Message = Message(&[
    one(1, "name", Text),
    one(2, "source", Named(&TRACK_SOURCE)),
    maybe(3, "preset", Named(&INGRESS_VIDEO_ENCODING_PRESET)),
    maybe(4, "options", Nested(&INGRESS_VIDEO_ENCODING_OPTIONS)),
]);

static INPUT_AUDIO_STATE: Message = Message(&[
    one(1, "mime_type", Text),
    one(2, "average_bitrate", Uint32),
    one(3, "channels", Uint32),
    one(4, "sample_rate", Uint32),
]);

static INPUT_VIDEO_STATE: Message = Message(&[
    one(1, "mime_type", Text),
    one(2, "average_bitrate", Uint32),
    one(3, "width", Uint32),
    one(4, "height", Uint32),
    one(5, "framerate", Double),
]);

static JOB: Message = Message(&[
    one(1, "id", Text),
    one(9, "dispatch_id", Text),
    one(2, "type", Named(&JOB_TYPE)),
    one(3, "room", Nested(&ROOM)),
    maybe(4, "participant", Nested(&PARTICIPANT_INFO)),
    one(5, "namespace", Text),
    one(6, "metadata", Text),
    one(7, "agent_name", Text),
    one(8, "state", Nested(&JOB_STATE)),
    one(10, "enable_recording", Bool),
    one(11, "deployment", Text),
    map(12, "attributes", Text),
    one(13, "enable_redaction", Bool),
]);

static JOB_STATE: Message = Message(&[
    one(1, "status", Named(&JOB_STATUS)),
    one(2, "error", Text),
    one(3, "started_at", Int64),
    one(4, "ended_at", Int64),
    one(5, "updated_at", Int64),
    one(6, "participant_identity", Text),
    one(7, "worker_id", Text),
    one(8, "agent_id", Text),
]);

static LIST_AGENT_DISPATCH_RESPONSE: Message = Message(&[
    many(1, "agent_dispatches", Nested(&AGENT_DISPATCH)),
]);

static LIST_EGRESS_RESPONSE: Message = Message(&[
    many(1, "items", Nested(&EGRESS_INFO)),
    one(2, "next_page_token", Nested(&TOKEN_PAGINATION)),
]);

static LIST_INGRESS_RESPONSE: Message = Message(&[
    one(2, "next_page_token", Nested(&TOKEN_PAGINATION)),
    many(1, "items", Nested(&INGRESS_INFO)),
]);

static LIST_PARTICIPANTS_RESPONSE: Message = Message(&[
    many(1, "participants", Nested(&PARTICIPANT_INFO)),
]);

static LIST_ROOMS_RESPONSE: Message = Message(&[
    many(1, "rooms", Nested(&ROOM)),
]);

static MEDIA_SOURCE: Message = Message(&[
    maybe(1, "video_track_id", Text),
    maybe(2, "participant_video", Nested(&PARTICIPANT_VIDEO)),
    one(3, "audio", Nested(&AUDIO_CONFIG)),
]);

static MOVE_PARTICIPANT_RESPONSE: Message = Message(&[
]);

static MUTE_ROOM_TRACK_RESPONSE: Message = Message(&[
    one(1, "track", Nested(&TRACK_INFO)),
]);

static OUTPUT: Message = Message(&[
    maybe(1, "file", Nested(&FILE_OUTPUT)),
    maybe(2, "stream", Nested(&STREAM_OUTPUT)),
    maybe(3, "segments", Nested(&SEGMENTED_FILE_OUTPUT)),
    maybe(4, "images", Nested(&IMAGE_OUTPUT)),
    one(6, "storage", Nested(&STORAGE_CONFIG)),
]);

static PARTICIPANT_EGRESS_REQUEST: Message = Message(&[
    one(1, "room_name", Text),
    one(2, "identity", Text),
    one(3, "screen_share", Bool),
    maybe(4, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(5, "advanced", Nested(&ENCODING_OPTIONS)),
    many(6, "file_outputs", Nested(&ENCODED_FILE_OUTPUT)),
    many(7, "stream_outputs", Nested(&STREAM_OUTPUT)),
    many(8, "segment_outputs", Nested(&SEGMENTED_FILE_OUTPUT)),
    many(9, "image_outputs", Nested(&IMAGE_OUTPUT)),
    many(10, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static PARTICIPANT_INFO: Message = Message(&[
    one(1, "sid", Text),
    one(2, "identity", Text),
    one(3, "state", Named(&PARTICIPANT_INFO_STATE)),
    many(4, "tracks", Nested(&TRACK_INFO)),
    one(5, "metadata", Text),
    one(6, "joined_at", Int64),
    one(17, "joined_at_ms", Int64),
    one(9, "name", Text),
    one(10, "version", Uint32),
    one(11, "permission", Nested(&PARTICIPANT_PERMISSION)),
    one(12, "region", Text),
    one(13, "is_publisher", Bool),
    one(14, "kind", Named(&PARTICIPANT_INFO_KIND)),
    map(15, "attributes", Text),
    one(16, "disconnect_reason", Named(&DISCONNECT_REASON)),
    many(18, "kind_details", Named(&PARTICIPANT_INFO_KIND_DETAIL)),
    many(19, "data_tracks", Nested(&DATA_TRACK_INFO)),
    one(20, "client_protocol", Int32),
    many(21, "capabilities", Named(&CLIENT_INFO_CAPABILITY)),
]);

static PARTICIPANT_PERMISSION: Message = Message(&[
    one(1, "can_subscribe", Bool),
    one(2, "can_publish", Bool),
    one(3, "can_publish_data", Bool),
    many(9, "can_publish_sources", Named(&TRACK_SOURCE)),
    one(7, "hidden", Bool),
    one(8, "recorder", Bool),
    one(10, "can_update_metadata", Bool),
    one(11, "agent", Bool),
    one(12, "can_subscribe_metrics", Bool),
    one(13, "can_manage_agent_session", Bool),
]);

static PARTICIPANT_VIDEO: Message = Message(&[
    one(1, "identity", Text),
    one(2, "prefer_screen_share", Bool),
]);

static PERFORM_RPC_RESPONSE: Message = Message(&[
    one(1, "payload", Text),
]);

static PROXY_CONFIG: Message = Message(&[
    one(1, "url", Text),
    one(2, "username", Text),
    one(3, "password", Text),
]);

static REMOVE_PARTICIPANT_RESPONSE: Message = Message(&[
]);

static ROOM: Message = Message(&[
    one(1, "sid", Text),
    one(2, "name", Text),
    one(3, "empty_timeout", Uint32),
    one(14, "departure_timeout", Uint32),
    one(4, "max_participants", Uint32),
    one(5, "creation_time", Int64),
    one(15, "creation_time_ms", Int64),
    one(6, "turn_password", Text),
    many(7, "enabled_codecs", Nested(&CODEC)),
    one(8, "metadata", Text),
    one(9, "num_participants", Uint32),
    one(11, "num_publishers", Uint32),
    one(10, "active_recording", Bool),
    one(13, "version", Nested(&TIMED_VERSION)),
]);

static ROOM_COMPOSITE_EGRESS_REQUEST: Message = Message(&[
    one(1, "room_name", Text),
    one(2, "layout", Text),
    one(3, "audio_only", Bool),
    one(15, "audio_mixing", Named(&AUDIO_MIXING)),
    one(4, "video_only", Bool),
    one(5, "custom_base_url", Text),
    maybe(6, "file", Nested(&ENCODED_FILE_OUTPUT)),
    maybe(7, "stream", Nested(&STREAM_OUTPUT)),
    maybe(10, "segments", Nested(&SEGMENTED_FILE_OUTPUT)),
    maybe(8, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(9, "advanced", Nested(&ENCODING_OPTIONS)),
    many(11, "file_outputs", Nested(&ENCODED_FILE_OUTPUT)),
    many(12, "stream_outputs", Nested(&STREAM_OUTPUT)),
    many(13, "segment_outputs", Nested(&SEGMENTED_FILE_OUTPUT)),
    many(14, "image_outputs", Nested(&IMAGE_OUTPUT)),
    many(16, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static S3_UPLOAD: Message = Message(&[
    one(1, "access_key", Text),
    one(2, "secret", Text),
    one(11, "session_token", Text),
    one(12, "assume_role_arn", Text),
    one(13, "assume_role_external_id", Text),
    one(3, "region", Text),
    one(4, "endpoint", Text),
    one(5, "bucket", Text),
    one(6, "force_path_style", Bool),
    map(7, "metadata", Text),
    one(8, "tagging", Text),
    one(9, "content_disposition", Text),
    one(10, "proxy", Nested(&PROXY_CONFIG)),
]);

static SEGMENTED_FILE_OUTPUT: Message = Message(&[
    one(1, "protocol", Named(&SEGMENTED_FILE_PROTOCOL)),
    one(2, "filename_prefix", Text),
    one(3, "playlist_name", Text),
    one(11, "live_playlist_name", Text),
    one(4, "segment_duration", Uint32),
    one(10, "filename_suffix", Named(&SEGMENTED_FILE_SUFFIX)),
    one(8, "disable_manifest", Bool),
    maybe(5, "s3", Nested(&S3_UPLOAD)),
    maybe(6, "gcp", Nested(&GCPUPLOAD)),
    maybe(7, "azure", Nested(&AZURE_BLOB_UPLOAD)),
    maybe(9, "aliOSS", Nested(&ALI_OSSUPLOAD)),
]);

static SEGMENTS_INFO: Message = Message(&[
    one(1, "playlist_name", Text),
    one(8, "live_playlist_name", Text),
    one(2, "duration", Int64),
    one(3, "size", Int64),
    one(4, "playlist_location", Text),
    one(9, "live_playlist_location", Text),
    one(5, "segment_count", Int64),
    one(6, "started_at", Int64),
    one(7, "ended_at", Int64),
]);

static SEND_DATA_RESPONSE: Message = Message(&[
]);

static SIMULCAST_CODEC_INFO: Message = Message(&[
    one(1, "mime_type", Text),
    one(2, "mid", Text),
    one(3, "cid", Text),
    many(4, "layers", Nested(&VIDEO_LAYER)),
    one(5, "video_layer_mode", Named(&VIDEO_LAYER_MODE)),
    one(6, "sdp_cid", Text),
]);

static START_EGRESS_REQUEST: Message = Message(&[
    one(1, "room_name", Text),
    maybe(2, "template", Nested(&TEMPLATE_SOURCE)),
    maybe(3, "web", Nested(&WEB_SOURCE)),
    maybe(4, "media", Nested(&MEDIA_SOURCE)),
    maybe(5, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(6, "advanced", Nested(&ENCODING_OPTIONS)),
    many(7, "outputs", Nested(&OUTPUT)),
    one(8, "storage", Nested(&STORAGE_CONFIG)),
    many(9, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static STORAGE_CONFIG: Message = Message(&[
    maybe(1, "s3", Nested(&S3_UPLOAD)),
    maybe(2, "gcp", Nested(&GCPUPLOAD)),
    maybe(3, "azure", Nested(&AZURE_BLOB_UPLOAD)),
    maybe(4, "aliOSS", Nested(&ALI_OSSUPLOAD)),
]);

static STREAM_INFO: Message = Message(&[
    one(1, "url", Text),
    one(2, "started_at", Int64),
    one(3, "ended_at", Int64),
    one(4, "duration", Int64),
    one(5, "status", Named(&STREAM_INFO_STATUS)),
    one(6, "error", Text),
    one(7, "last_retry_at", Int64),
    one(8, "retries", Uint32),
]);

static STREAM_INFO_LIST: Message = Message(&[
    many(1, "info", Nested(&STREAM_INFO)),
]);

static STREAM_OUTPUT: Message = Message(&[
    one(1, "protocol", Named(&STREAM_PROTOCOL)),
    many(2, "urls", Text),
]);

static TEMPLATE_SOURCE: Message = Message(&[
    one(1, "layout", Text),
    one(2, "audio_only", Bool),
    one(3, "video_only", Bool),
    one(4, "custom_base_url", Text),
]);

static TIMED_VERSION: Message = Message(&[
    one(1, "unix_micro", Int64),
    one(2, "ticks", Int32),
]);

static TOKEN_PAGINATION: Message = Message(&[
    one(1, "token", Text),
]);

static TRACK_COMPOSITE_EGRESS_REQUEST: Message = Message(&[
    one(1, "room_name", Text),
    one(2, "audio_track_id", Text),
    one(3, "video_track_id", Text),
    maybe(4, "file", Nested(&ENCODED_FILE_OUTPUT)),
    maybe(5, "stream", Nested(&STREAM_OUTPUT)),
    maybe(8, "segments", Nested(&SEGMENTED_FILE_OUTPUT)),
    maybe(6, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(7, "advanced", Nested(&ENCODING_OPTIONS)),
    many(11, "file_outputs", Nested(&ENCODED_FILE_OUTPUT)),
    many(12, "stream_outputs", Nested(&STREAM_OUTPUT)),
    many(13, "segment_outputs", Nested(&SEGMENTED_FILE_OUTPUT)),
    many(14, "image_outputs", Nested(&IMAGE_OUTPUT)),
    many(15, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static TRACK_EGRESS_REQUEST: Message = Message(&[
    one(1, "room_name", Text),
    one(2, "track_id", Text),
    maybe(3, "file", Nested(&DIRECT_FILE_OUTPUT)),
    maybe(4, "websocket_url", Text),
    many(5, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static TRACK_INFO: Message = Message(&[
    one(1, "sid", Text),
    one(2, "type", Named(&TRACK_TYPE)),
    one(3, "name", Text),
    one(4, "muted", Bool),
    one(5, "width", Uint32),
    one(6, "height", Uint32),
    one(7, "simulcast", Bool),
    one(8, "disable_dtx", Bool),
    one(9, "source", Named(&TRACK_SOURCE)),
    many(10, "layers", Nested(&VIDEO_LAYER)),
    one(11, "mime_type", Text),
    one(12, "mid", Text),
    many(13, "codecs", Nested(&SIMULCAST_CODEC_INFO)),
    one(14, "stereo", Bool),
    one(15, "disable_red", Bool),
    one(16, "encryption", Named(&ENCRYPTION_TYPE)),
    one(17, "stream", Text),
    one(18, "version", Nested(&TIMED_VERSION)),
    many(19, "audio_features", Named(&AUDIO_TRACK_FEATURE)),
    one(20, "backup_codec_policy", Named(&BACKUP_CODEC_POLICY)),
    many(21, "packet_trailer_features", Named(&PACKET_TRAILER_FEATURE)),
]);

static UPDATE_SUBSCRIPTIONS_RESPONSE: Message = Message(&[
]);

static VIDEO_LAYER: Message = Message(&[
    one(1, "quality", Named(&VIDEO_QUALITY)),
    one(2, "width", Uint32),
    one(3, "height", Uint32),
    one(4, "bitrate", Uint32),
    one(5, "ssrc", Uint32),
    one(6, "spatial_layer", Int32),
    one(7, "rid", Text),
    one(8, "repair_ssrc", Uint32),
]);

static WEB_EGRESS_REQUEST: Message = Message(&[
    one(1, "url", Text),
    one(2, "audio_only", Bool),
    one(3, "video_only", Bool),
    one(12, "await_start_signal", Bool),
    maybe(4, "file", Nested(&ENCODED_FILE_OUTPUT)),
    maybe(5, "stream", Nested(&STREAM_OUTPUT)),
    maybe(6, "segments", Nested(&SEGMENTED_FILE_OUTPUT)),
    maybe(7, "preset", Named(&ENCODING_OPTIONS_PRESET)),
    maybe(8, "advanced", Nested(&ENCODING_OPTIONS)),
    many(9, "file_outputs", Nested(&ENCODED_FILE_OUTPUT)),
    many(10, "stream_outputs", Nested(&STREAM_OUTPUT)),
    many(11, "segment_outputs", Nested(&SEGMENTED_FILE_OUTPUT)),
    many(13, "image_outputs", Nested(&IMAGE_OUTPUT)),
    many(14, "webhooks", Nested(&WEBHOOK_CONFIG)),
]);

static WEB_SOURCE: Message = Message(&[
    one(1, "url", Text),
    one(2, "audio_only", Bool),
    one(3, "video_only", Bool),
    one(4, "await_start_signal", Bool),
]);

static WEBHOOK_CONFIG: Message = Message(&[
    one(1, "url", Text),
    one(2, "signing_key", Text),
    one(3, "filter_params", Nested(&FILTER_PARAMS)),
]);

static WEBHOOK_EVENT: Message = Message(&[
    one(1, "event", Text),
    one(2, "room", Nested(&ROOM)),
    one(3, "participant", Nested(&PARTICIPANT_INFO)),
    one(9, "egress_info", Nested(&EGRESS_INFO)),
    one(10, "ingress_info", Nested(&INGRESS_INFO)),
    one(8, "track", Nested(&TRACK_INFO)),
    one(12, "job", Nested(&JOB)),
    one(6, "id", Text),
    one(7, "created_at", Int64),
    one(11, "num_dropped", Int32),
    one(13, "room_end_reason", Named(&ROOM_END_REASON)),
]);

super::render::described! {
    AgentDispatch => AGENT_DISPATCH,
    DeleteRoomResponse => DELETE_ROOM_RESPONSE,
    EgressInfo => EGRESS_INFO,
    ForwardParticipantResponse => FORWARD_PARTICIPANT_RESPONSE,
    IngressInfo => INGRESS_INFO,
    ListAgentDispatchResponse => LIST_AGENT_DISPATCH_RESPONSE,
    ListEgressResponse => LIST_EGRESS_RESPONSE,
    ListIngressResponse => LIST_INGRESS_RESPONSE,
    ListParticipantsResponse => LIST_PARTICIPANTS_RESPONSE,
    ListRoomsResponse => LIST_ROOMS_RESPONSE,
    MoveParticipantResponse => MOVE_PARTICIPANT_RESPONSE,
    MuteRoomTrackResponse => MUTE_ROOM_TRACK_RESPONSE,
    ParticipantInfo => PARTICIPANT_INFO,
    PerformRpcResponse => PERFORM_RPC_RESPONSE,
    RemoveParticipantResponse => REMOVE_PARTICIPANT_RESPONSE,
    Room => ROOM,
    SendDataResponse => SEND_DATA_RESPONSE,
    TrackInfo => TRACK_INFO,
    UpdateSubscriptionsResponse => UPDATE_SUBSCRIPTIONS_RESPONSE,
    WebhookEvent => WEBHOOK_EVENT,
}
