//! Signed posts, in the form of Standard Webhooks 1.0: receivers check them with the libraries of svix and others.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderName, Method, Request, StatusCode};

use crate::call::{Fault, Timestamp};
use crate::config::{Secret, Webhook};

use super::outbox::Failed;

/// The post of one event: signed with every key in force, over id, time and exact bytes.
pub(super) fn request(to: &Webhook, id: &str, body: Bytes, now: Timestamp) -> Result<Request<Bytes>, Fault> {
    let seconds = now.as_millis() / 1000;
    let signatures: Vec<String> = to.keys.iter().map(|key| sign(key, id, seconds, &body)).collect::<Result<_, _>>()?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = to.url.clone();
    let fits = |text: &str| HeaderValue::from_str(text).map_err(|e| Fault::caused("a webhook cannot be signed", e));
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("holdpoint/", env!("CARGO_PKG_VERSION"))));
    headers.insert(HeaderName::from_static("webhook-id"), fits(id)?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), fits(&seconds.to_string())?);
    headers.insert(HeaderName::from_static("webhook-signature"), fits(&signatures.join(" "))?);
    Ok(request)
}

fn sign(secret: &Secret, id: &str, seconds: i64, body: &[u8]) -> Result<String, Fault> {
    let text = secret.reveal().strip_prefix("whsec_").unwrap_or_default();
    let raw = STANDARD.decode(text).map_err(|e| Fault::caused("a webhook's secret cannot be read", e))?;
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &raw));
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Ok(format!("v1,{}", STANDARD.encode(mac.sign())))
}

/// What the receiver's status means: 2xx is yes, 410 is never again, anything else another time.
pub(super) fn judged(status: StatusCode) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let why = format!("status {}", status.as_u16());
    Err(if status == StatusCode::GONE { Failed::for_good(why) } else { Failed::again(why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
