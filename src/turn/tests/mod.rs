mod abuse;
pub(crate) mod client;
mod data;
mod lifecycle;
mod requests;
