//! Bytes on the agent's side ↔ the vocabulary of calls. Knows protocols, knows no policy.

pub mod body;
mod hints;
mod ingress;
mod listener;
mod mcp;
mod own;
pub mod path;
mod reply;
mod rest;
mod surface;
mod tap;
pub mod tls;

pub use crate::call::json;
pub(crate) use ingress::allowed;
pub use listener::{Core, Cores, accept};
pub use own::{OwnReply, OwnRequest, TaskReply, TaskRequest, TaskVerb};
pub use surface::{Edge, Mount, Surface};
