//! `holdpoint.yaml`, written by hand: comments are half of it.

use super::{AGENT, AGENTS, At, OWNERS, Operation, REVIEWER, Tool, WORKFLOW};

/// The configuration.
pub(super) fn config(tools: &[Tool]) -> String {
    let tools_text: String = tools.iter().map(tool).collect();
    format!(
        "# yaml-language-server: $schema=https://holdpoint.dev/schema/config-v1.json
# Drafted by `holdpoint init`. Look at every `# guessed`; `holdpoint check` says what is wrong.
version: 1
listen:   {{ agents: 127.0.0.1:8700, admin: 127.0.0.1:8701 }}
state:    {{ path: ./state }}
policies: {{ dir: ./policies, mode: observe }}           # stops nothing and records what `enforce` would do

identity:
  agents:
    api_keys:
      - {{ agent: {AGENT}, group: {AGENTS}, owner: {OWNERS}, key: {{ file: secrets/{AGENT} }} }}
  reviewers:
    tokens:
      - {{ user: {REVIEWER}, groups: [{OWNERS}], token: {{ file: secrets/{REVIEWER} }} }}

workflows:
  {WORKFLOW}: {{ owner: {OWNERS}, stage: execute, agents: [{AGENTS}] }}

tools:
{tools_text}
budgets:
  - {{ per: run, calls: 500 }}
{money}
rates:
  - {{ per: agent, limit: 20/s, burst: 40 }}
  - {{ per: total, limit: 200/s }}

reviews:
  inline_wait: 3s                                       # then the agent hears \"held\" and how to come back
  medium: {{ sla: 15m, expires: 4h }}
  high:   {{ sla: 10m, expires: 30m, window: 30m }}
",
        money = money(tools),
    )
}

fn money(tools: &[Tool]) -> &'static str {
    if tools.iter().flat_map(|t| &t.operations).any(|o| o.cost.is_some()) {
        "  # - { per: org, money: 1000.00 EUR, every: 1d }      # money moves here: set a limit in its currency\n"
    } else {
        ""
    }
}

fn tool(t: &Tool) -> String {
    let mcp = t.lock.is_some();
    let (kind, mount) = if mcp { ("mcp", format!("/{}/mcp", t.name)) } else { ("rest", format!("/{}", t.name)) };
    let mut out = format!(
        "  {}:\n    kind: {kind}\n    owner: {OWNERS}\n    env: prod\n    mount: {mount:<44}# agents use http://127.0.0.1:8700{mount}\n{}",
        key(&t.name),
        upstream(t),
    );
    if mcp {
        out.push_str(&format!("    lock: {:<45}# written anew by `holdpoint lock {}`\n", lock_path(t), t.name));
    }
    out.push_str("    operations:\n");
    for o in &t.operations {
        out.push_str(&operation(t, o));
    }
    out
}

fn lock_path(t: &Tool) -> String {
    format!("{}.lock.json", t.name)
}

fn upstream(t: &Tool) -> String {
    let mut parts = Vec::new();
    match &t.at {
        At::Url(url) => parts.push(format!("url: {}", quoted(url))),
        At::Command(command) => {
            parts.push(format!("command: [{}]", command.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(", ")));
        }
    }
    if let Some(name) = &t.token {
        parts.push(format!("auth: {{ bearer: {{ env: {} }} }}", quoted(name)));
    }
    if !t.env.is_empty() {
        let all: Vec<String> = t.env.iter().map(|n| format!("{0}: {{ env: {0} }}", quoted(n))).collect();
        parts.push(format!("env: {{ {} }}", all.join(", ")));
    }
    let mut out = format!("    upstream: {{ {} }}\n", parts.join(", "));
    if t.secured && t.token.is_none() {
        let name = t.name.to_uppercase().replace('-', "_");
        let hint = format!("    # it wants a credential: auth: {{ bearer: {{ env: {name}_TOKEN }} }}, or a header\n");
        out.push_str(&hint);
    }
    if !t.headers.is_empty() {
        let all: Vec<String> = t.headers.iter().map(|h| quoted(h)).collect();
        let hint = format!(
            "    # policies see no headers; agents may send what you list: forward_headers: [{}]\n",
            all.join(", ")
        );
        out.push_str(&hint);
    }
    out
}

fn operation(t: &Tool, o: &Operation) -> String {
    let guessed = o.why.map_or_else(|| "# guessed".to_owned(), |why| format!("# guessed: {why}"));
    let name = key(&o.name);
    let effect = o.effect.word();
    if o.matches.is_none() && o.cost.is_none() {
        return format!("      {name}: {{ effect: {effect} }}  {guessed}\n");
    }
    let mut lines = vec![format!("effect: {effect}  {guessed}")];
    if let Some(matches) = &o.matches {
        if o.plain {
            return format!("      {name}: {{ match: {matches}, effect: {effect} }}  {guessed}\n");
        }
        lines.insert(0, format!("match: {}", scalar(matches)));
        lines.push(format!("schema: {}", schema_path(t, o)));
        lines.extend(preview(t, matches));
    }
    if let Some((amount, currency)) = &o.cost {
        let pointers = format!("amount: {}, currency: {}", quoted(amount), quoted(currency));
        lines.push(format!("cost: {{ {pointers} }}  # guessed: the amount is in minor units"));
    }
    let lines: String = lines.iter().map(|line| format!("        {line}\n")).collect();
    format!("      {name}:\n{lines}")
}

/// What changes a thing that can be read can be foreseen.
fn preview(t: &Tool, matches: &str) -> Option<String> {
    let (method, path) = matches.split_once(' ')?;
    let diff = match method {
        "PATCH" => "merge-patch",
        "PUT" => "replace",
        _ => return None,
    };
    let read = format!("GET {path}");
    let readable = t.operations.iter().any(|o| o.matches.as_deref() == Some(read.as_str()));
    readable.then(|| format!("preview: {{ read: {}, diff: {diff} }}  # guessed", quoted(&read)))
}

/// Where the schema of a REST operation stands, below the folder of the draft.
pub(super) fn schema_path(t: &Tool, o: &Operation) -> String {
    format!("schemas/{}/{}.json", t.name, o.name)
}

/// Words that some reader of YAML takes for something else.
const TRAPS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

fn is_trap(text: &str) -> bool {
    TRAPS.contains(&text.to_lowercase().as_str())
}

/// A key, or a value outside of braces; quoted when it needs to be.
pub(super) fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" _./:~-".contains(&b))
        && !text.contains(": ")
        && !text.ends_with([':', ' ']);
    if plain && !is_trap(text) { text.to_owned() } else { json(text) }
}

fn key(text: &str) -> String {
    if text.contains([':', ' ']) { json(text) } else { scalar(text) }
}

/// A value inside braces or brackets.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:-@".contains(&b))
        && !text.ends_with(':');
    if plain && !is_trap(text) { text.to_owned() } else { json(text) }
}

/// A double-quoted scalar: what JSON writes, YAML reads.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_otherwise_is_quoted() {
        for plain in ["GET /a/:id", "get_user", "a.b/c-d"] {
            assert_eq!(scalar(plain), plain);
        }
        for odd in ["no", "On", "1e3", "-a", "a: b", "a:", "*", "", "é", "a #b", "nan", "12"] {
            assert!(scalar(odd).starts_with('"'), "{odd}");
            let back: String = serde_saphyr::from_str(&scalar(odd)).unwrap();
            assert_eq!(back, odd);
        }
        for odd in ["a, b", "{a}", "a b", "[x]", "--flag"] {
            assert!(quoted(odd).starts_with('"'), "{odd}");
        }
        assert_eq!(quoted("https://x.dev/v1"), "https://x.dev/v1");
    }
}
