//! Names of operations and tools, made legal and unique.

use std::collections::BTreeSet;

/// Longer names are cut: they are file names and metric labels, too.
const LONGEST: usize = 80;

/// `listUsers`, `repos/list-for-org` → `list_users`, `repos_list_for_org`; empty when nothing of it can be used.
#[must_use]
pub(super) fn snake(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        let begins = c.is_ascii_uppercase()
            && (before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && letters.peek().is_some_and(char::is_ascii_lowercase)));
        if (begins || !c.is_ascii_alphanumeric()) && !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    let cut: String = out.trim_matches('_').chars().take(LONGEST).collect();
    let cut = cut.trim_end_matches('_');
    if cut.starts_with(|c: char| c.is_ascii_digit()) { format!("op_{cut}") } else { cut.to_owned() }
}

/// A name of method and path: `GET /customers/{id}/orders` → `get_customers_by_id_orders`.
#[must_use]
pub(super) fn of_path(method: &str, path: &str) -> String {
    let word = |s: &str| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
        Some(name) => format!("by_{}", snake(name)),
        None => snake(s),
    };
    let words: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(word).collect();
    snake(&format!("{}_{}", method.to_lowercase(), words.join("_")))
}

/// The name itself, or with the first number that makes it unique.
#[must_use]
pub fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut free = name.to_owned();
    let mut n = 2;
    while !taken.insert(free.clone()) {
        free = format!("{name}_{n}");
        n += 1;
    }
    free
}

/// Words that every API calls itself.
const EMPTY: &[&str] = &[
    "a",
    "an",
    "and",
    "api",
    "apis",
    "description",
    "documentation",
    "for",
    "http",
    "mcp",
    "official",
    "of",
    "openapi",
    "public",
    "rest",
    "server",
    "service",
    "spec",
    "specification",
    "swagger",
    "the",
    "web",
];

/// What may not be a tool's name: with an operation it would be the name of an action of people.
const KEPT: &[&str] = &[
    "admin", "artifact", "audit", "breaker", "budget", "call", "effect", "grant", "hint", "hold", "policy", "sample",
    "tool", "undo",
];

/// A tool's name from a title, a file name or a host: at most two words that mean something.
#[must_use]
pub fn title_name(text: &str) -> Option<String> {
    let whole = snake(&text.to_lowercase().replace("'s", ""));
    let is_version = |w: &str| w.strip_prefix('v').unwrap_or(w).bytes().all(|b| b.is_ascii_digit());
    let words: Vec<&str> =
        whole.split('_').filter(|w| !w.is_empty() && !EMPTY.contains(w) && !is_version(w)).take(2).collect();
    let name = words.join("_");
    match name.as_str() {
        "" => None,
        kept if KEPT.contains(&kept) => Some(format!("{kept}_api")),
        _ => Some(name),
    }
}

/// A tool's name from the host of its URL.
#[must_use]
pub fn url_name(url: &str) -> Option<String> {
    let host = url.parse::<http::Uri>().ok()?.host()?.to_owned();
    let numeric = host.parse::<std::net::IpAddr>().is_ok() || host == "localhost";
    let labels: Vec<&str> = host.split('.').filter(|l| !["www", "api", "mcp"].contains(l)).collect();
    if numeric { None } else { labels.first().and_then(|l| title_name(l)) }
}

/// A tool's name from the command that starts it: `npx -y @acme/server-tickets` → `tickets`.
#[must_use]
pub fn command_name(command: &[String]) -> Option<String> {
    let named = |part: &&String| part.contains("mcp") || part.contains("server");
    let words = || command.iter().filter(|p| !p.starts_with('-'));
    let part = words().rev().find(named).or_else(|| words().next())?;
    let plain = |s: &&str| {
        let stem = s.split('.').next().unwrap_or_default();
        !matches!(stem, "" | "dist" | "build" | "src" | "bin" | "index" | "main" | "lib" | "node_modules")
    };
    let last = part.trim_start_matches('@').split('/').rev().find(plain)?;
    title_name(last.split('@').next()?.trim_end_matches(".js").trim_end_matches(".py"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_snake_case_whatever_they_were() {
        for (given, name) in [
            ("listUsers", "list_users"),
            ("repos/list-for-org", "repos_list_for_org"),
            ("getHTTPStatus", "get_http_status"),
            ("Get customer (v2)", "get_customer_v2"),
            ("2fa", "op_2fa"),
            ("Überweisung", "berweisung"),
            ("日本", ""),
        ] {
            assert_eq!(snake(given), name, "{given}");
        }
        assert_eq!(of_path("GET", "/customers/{customerId}/orders"), "get_customers_by_customer_id_orders");
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let mut taken = BTreeSet::new();
        assert_eq!(["a", "a", "a"].map(|n| unique(n, &mut taken)), ["a", "a_2", "a_3"]);
    }

    #[test]
    fn tools_are_called_by_what_they_are() {
        assert_eq!(title_name("GitHub v3 REST API").as_deref(), Some("github"));
        assert_eq!(title_name("The Swagger Petstore - OpenAPI 3.0").as_deref(), Some("petstore"));
        assert_eq!(title_name("API"), None);
        assert_eq!(title_name("Policy API").as_deref(), Some("policy_api"));
        assert_eq!(url_name("https://api.tickets.acme.dev/mcp").as_deref(), Some("tickets"));
        assert_eq!(url_name("http://127.0.0.1:3001/mcp"), None);
        let command = |text: &str| command_name(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(command("npx -y @acme/server-tickets@1.2").as_deref(), Some("tickets"));
        assert_eq!(command("node x/server-everything/dist/index.js stdio").as_deref(), Some("everything"));
    }
}
