//! The YAML document with the place of each key, so that every mistake can name its line.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::Mistakes;

/// A node of the document and the line it stands on (1-based).
#[derive(Debug)]
pub(super) struct Tree {
    line: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<(String, u64, Tree)>),
}

/// Parses strict YAML: duplicate keys are errors, anchors are bounded.
pub(super) fn parse(text: &str, path: &Path) -> Result<Tree, Mistakes> {
    // `n`, `y`, `on` and `off` are words.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options::<Tree>(text, options).map_err(|e| {
        let line = e.location().map(|l| l.line());
        let text = e.without_snippet().to_string();
        Mistakes::one(path, line, "", format!("not YAML as we accept it: {text}"))
    })
}

impl Tree {
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(v) => v.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Kind::Map(members) => {
                Value::Object(members.iter().map(|(k, _, t)| (k.clone(), t.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The line of the deepest node on the way of this JSON Pointer that exists.
    pub(super) fn line(&self, pointer: &str) -> u64 {
        let mut node = self;
        let mut line = self.line;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Map(members) => members.iter().find(|(k, ..)| *k == token).map(|(_, line, child)| (*line, child)),
                Kind::List(items) => token.parse().ok().and_then(|i: usize| items.get(i)).map(|c| (c.line, c)),
                Kind::Scalar(_) => None,
            };
            let Some((at, child)) = next else { break };
            line = at;
            node = child;
        }
        line
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(d)?;
        Ok(Self { line: spanned.referenced.line(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(v.into()))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Kind, E> {
        Number::from_f64(v).map(|n| Kind::Scalar(n.into())).ok_or_else(|| E::custom("not a finite number"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(v.into()))
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Kind, D::Error> {
        Kind::deserialize(d)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut members: Vec<(String, u64, Tree)> = Vec::new();
        while let Some((key, child)) = map.next_entry::<Spanned<String>, Tree>()? {
            if members.iter().any(|(k, ..)| *k == key.value) {
                return Err(de::Error::custom(format!("the key `{}` stands twice", key.value)));
            }
            members.push((key.value, key.referenced.line(), child));
        }
        Ok(Kind::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_its_line() {
        let t = parse("a: 1\nb:\n  c: [x, y]\n  d: { e: 5s }\n", Path::new("f")).unwrap();
        assert_eq!(t.line("/a"), 1);
        assert_eq!(t.line("/b/c/1"), 3);
        assert_eq!(t.line("/b/d/e"), 4);
        assert_eq!(t.line("/b/d/none"), 4);
    }

    #[test]
    fn only_true_and_false_are_truth_values() {
        let t = parse("[n, y, no, on, off, true, 'true']", Path::new("f")).unwrap();
        assert_eq!(t.value(), serde_json::json!(["n", "y", "no", "on", "off", true, "true"]));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_line() {
        let wrong = parse("a: 1\nb: 2\na: 3\n", Path::new("f")).unwrap_err().to_string();
        assert!(wrong.contains("f:3"), "{wrong}");
    }
}
