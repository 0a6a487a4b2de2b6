//! L1, sans-IO: one transport's ICE, DTLS, SRTP and SCTP.
