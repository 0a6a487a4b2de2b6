mod abuse;
mod client;
mod data;
mod lifecycle;
mod requests;
