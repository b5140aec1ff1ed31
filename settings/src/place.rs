//! Where a key stands in a text of YAML.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Line and column (from 1) of this key, or of as much of the way to it as there is.
pub(crate) fn of(text: &str, key: &[String]) -> Option<(u64, u64)> {
    let whole: Node = serde_saphyr::from_str(text).ok()?;
    let (mut node, mut at) = (&whole, None);
    for step in key {
        let Some((place, next)) = node.below(step) else { break };
        (node, at) = (next, Some(place));
    }
    at
}

/// What stands somewhere, as far as a way leads through it.
enum Node {
    Keys(Vec<(Spanned<String>, Node)>),
    List(Vec<Spanned<Node>>),
    Value,
}

impl Node {
    /// What stands below this key or, in brackets, at this place of a list, and where.
    fn below(&self, step: &str) -> Option<((u64, u64), &Self)> {
        match self {
            Self::Keys(entries) => {
                let (key, node) = entries.iter().find(|(key, _)| key.value == step)?;
                Some(((key.referenced.line(), key.referenced.column()), node))
            }
            Self::List(entries) => {
                let number = step.strip_prefix('[')?.strip_suffix(']')?;
                let entry = entries.get(number.parse::<usize>().ok()?)?;
                Some(((entry.referenced.line(), entry.referenced.column()), &entry.value))
            }
            Self::Value => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Keys(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Node::Value)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Value)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value)
    }
}
