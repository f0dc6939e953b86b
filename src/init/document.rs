//! An OpenAPI document: read, and looked into by JSON Pointer.

use serde_json::Value;

/// `$ref` to `$ref` is followed this often.
const CHAIN: usize = 16;

/// An OpenAPI document of version 3.
#[derive(Debug)]
pub struct Document {
    root: Value,
}

impl Document {
    /// Reads JSON or YAML.
    ///
    /// # Errors
    /// Why it is not an OpenAPI document that is taken.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let root: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?
        } else {
            yaml(text)?
        };
        if let Some(version) = root.get("swagger") {
            let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            return Err(format!(
                "Swagger {version}, which is not taken; convert it first: `npx -y swagger2openapi FILE -o openapi.json`"
            ));
        }
        match root.get("openapi").and_then(Value::as_str) {
            Some(version) if version.starts_with("3.") => Ok(Self { root }),
            Some(version) => Err(format!("OpenAPI {version}, of which only 3.x is taken")),
            None => Err("not an OpenAPI document: it has no `openapi: 3.x`".into()),
        }
    }

    /// The title, where it has one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.root.pointer("/info/title").and_then(Value::as_str)
    }

    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// What a local reference names.
    pub(super) fn at(&self, reference: &str) -> Option<&Value> {
        let pointer = reference.strip_prefix('#')?;
        let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
        self.root.pointer(&decoded)
    }

    /// The node itself, or what its chain of references ends in.
    pub(super) fn follow<'d>(&'d self, mut node: &'d Value) -> Option<&'d Value> {
        for _ in 0..CHAIN {
            match node.get("$ref").and_then(Value::as_str) {
                None => return Some(node),
                Some(reference) => node = self.at(reference)?,
            }
        }
        None
    }

    /// The first server's URL with the defaults of its variables.
    pub(super) fn first_server(&self) -> Option<String> {
        server(&self.root)
    }
}

/// The first URL under `servers`, with the defaults of its variables.
#[must_use]
pub fn server(node: &Value) -> Option<String> {
    let server = node.get("servers")?.get(0)?;
    let mut url = server.get("url")?.as_str()?.to_owned();
    for (name, variable) in server.get("variables").and_then(Value::as_object).into_iter().flatten() {
        if let Some(default) = variable.get("default").and_then(Value::as_str) {
            url = url.replace(&format!("{{{name}}}"), default);
        }
    }
    Some(url)
}

/// YAML of documents that people write: large, and as strict as the configuration.
fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        // `no` is a country, too.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 20_000_000,
            max_depth: 256,
            max_total_scalar_bytes: 512 << 20,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| format!("not YAML: {}", e.without_snippet()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_are_read_and_older_documents_are_sent_to_a_converter() {
        let json = Document::read(r#"{"openapi": "3.1.0", "info": {"title": "T"}}"#).unwrap();
        assert_eq!(json.title(), Some("T"));
        let yaml = "openapi: 3.0.3\ninfo: {title: T}\npaths:\n  /a:\n    get:\n      responses:\n        200: {}\n";
        let yaml = Document::read(yaml).unwrap();
        assert!(yaml.root().pointer("/paths/~1a/get/responses/200").is_some());
        assert!(Document::read("swagger: '2.0'\n").unwrap_err().contains("swagger2openapi"));
        assert!(Document::read("a: 1\n").is_err());
    }

    #[test]
    fn variables_of_a_server_take_their_defaults() {
        let text = r#"{"openapi": "3.0.0", "servers": [{"url": "https://{r}.x.dev/{v}",
            "variables": {"r": {"default": "eu"}, "v": {"default": "v1"}}}]}"#;
        assert_eq!(Document::read(text).unwrap().first_server().as_deref(), Some("https://eu.x.dev/v1"));
    }
}
