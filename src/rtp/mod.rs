//! L0: views and writers of RTP, RTCP, header extensions and codec descriptors.
