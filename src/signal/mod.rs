//! L3: the /rtc WebSocket.
