//! What an MCP server offers: `tools/list`, in the era that it speaks, page by page.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::UpstreamAuth;

use super::client::{Client, parsed};
use super::credential;
use super::endpoint::{Endpoint, Origin};
use super::pool::Pool;

const TIME: Duration = Duration::from_secs(60);
/// Longest page, bytes.
const LIMIT: usize = 64 << 20;
const PAGES: usize = 1_000;

/// All tool definitions of the server.
///
/// # Errors
/// Why they cannot be had.
pub async fn catalog(endpoint: &Endpoint, base: &str, clock: Arc<dyn Clock>) -> Result<Vec<Value>, String> {
    let listed = async {
        match endpoint {
            Endpoint::Http(origin) => {
                let mut client = Client::new(origin, base, Arc::new(Pool::new(clock)), head(origin)?, LIMIT);
                client.begin().await?;
                let all = pages(async |params| client.ask("tools/list", params, &[]).await).await?;
                client.goodbye().await;
                Ok(all)
            }
            Endpoint::Stdio(server) => pages(async |params| server.result("tools/list", &params).await).await,
        }
    };
    match tokio::time::timeout(TIME, listed).await {
        Ok(list) => list,
        Err(_) => Err("no answer in time".into()),
    }
}

/// The credential; of `auth: pass_through` the operator's own.
fn head(endpoint: &Origin) -> Result<HeaderMap, String> {
    let mut head = HeaderMap::new();
    if !matches!(endpoint.auth(), UpstreamAuth::PassThrough) {
        credential(&mut head, endpoint, None)?;
        return Ok(head);
    }
    let token = std::env::var("HOLDPOINT_LOCK_TOKEN")
        .map_err(|_| "`auth: pass_through`: set HOLDPOINT_LOCK_TOKEN to a token of the upstream")?;
    let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "not a header value")?;
    head.insert(AUTHORIZATION, value);
    Ok(head)
}

async fn pages(mut page: impl AsyncFnMut(Value) -> Result<String, String>) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    let mut params = json!({});
    for _ in 0..PAGES {
        let result = parsed(&page(params).await?)?;
        let tools = result.get("tools").and_then(Value::as_array).ok_or("the answer has no `tools`")?;
        all.extend(tools.iter().cloned());
        let Some(cursor) = result.get("nextCursor").and_then(Value::as_str) else { return Ok(all) };
        params = json!({"cursor": cursor});
    }
    Err("the list of tools does not end".into())
}
