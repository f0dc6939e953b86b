//! Bounded reading: the only place that collects a body.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use crate::call::{Code, Refusal};

/// How long a body may take as a whole, beside the time that its minimum rate allows.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes per second that a body must keep up.
const MIN_RATE: u64 = 1024;

/// Reads a whole request body of at most `limit` bytes, within a bounded time, without trailers.
///
/// # Errors
/// `body_too_large`, or `malformed_request` (408 when too slow, 400 when broken or with trailers).
pub async fn read<B>(body: B, limit: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let time = BODY_TIME + Duration::from_secs(limit as u64 / MIN_RATE);
    let time = time.min(Duration::from_secs(120));
    match tokio::time::timeout(time, collect(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(Code::MalformedRequest, "the body came too slowly")
            .with_status(http::StatusCode::REQUEST_TIMEOUT)),
    }
}

async fn collect<B>(mut body: B, limit: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut all = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        // A pause of this length between two pieces is slower than any honest client.
        let next = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
        let frame = match next {
            Err(_) => {
                return Err(Refusal::new(Code::MalformedRequest, "the body stopped coming")
                    .with_status(http::StatusCode::REQUEST_TIMEOUT));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Refusal::new(Code::MalformedRequest, "the body broke off or is misframed")),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else {
            return Err(Refusal::new(Code::MalformedRequest, "trailers are not accepted"));
        };
        if all.len() + data.len() + first.as_ref().map_or(0, Bytes::len) > limit {
            return Err(too_large(limit));
        }
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(head) => {
                all.extend_from_slice(&head);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is over the limit of {limit} bytes")).with("limit", limit)
}
