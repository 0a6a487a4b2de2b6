//! L0: session descriptions: parse, model, write.
