//! `/-/…`: what an agent may ask about its own calls (`contract.md` 2.1).

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::call::{Credentials, Preference, Refusal, Reply};

/// A request below `/-/`.
#[derive(Debug)]
pub struct OwnRequest {
    /// Method.
    pub method: Method,
    /// Segments below `/-/`.
    pub segments: Vec<String>,
    /// What the client presented.
    pub credentials: Credentials,
    /// Address of the peer.
    pub peer: IpAddr,
    /// `Prefer`.
    pub prefer: Preference,
    /// JSON body, where there is one.
    pub json: Option<Value>,
    /// The body's bytes.
    pub body: Bytes,
}

/// Its answer.
#[derive(Debug)]
pub enum OwnReply {
    /// JSON, with further headers.
    Json(StatusCode, Value, HeaderMap),
    /// An upstream's answer as it came.
    Result(Reply),
    /// A refusal.
    Refused(Refusal),
}
