//! Stories of the whole domain, in virtual time.

mod anything;
mod calls;
mod errors;
mod gateway;
mod joining;
mod moderation;
mod regions;
mod rights;
mod takeover;
mod truth;
mod world;
