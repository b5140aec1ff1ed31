//! The fields that a reader looks for.

/// What is wanted of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Its number or its string.
    Value,
    /// Whether it is true.
    Bool,
    /// The word for its number: that of an enumeration, from zero on.
    Word(&'static [&'static str]),
    /// Whether it is anything but zero, false or empty.
    Seen,
    /// Its bytes, in pieces as they come.
    Fragments,
    /// The moment when its message closes.
    Closed,
}

/// The wanted fields, as a tree.
#[derive(Debug)]
pub struct Table<F> {
    nodes: Vec<Node<F>>,
}

/// One step along the paths.
#[derive(Debug)]
pub(super) struct Node<F> {
    pub(super) fields: Vec<(u32, u16)>,
    /// Of an entry of a map: its value by its key.
    keys: Vec<(&'static str, u16)>,
    pub(super) take: Option<(Take, F)>,
    /// The field that wants to know when this closes.
    pub(super) closed: Option<F>,
}

/// Nothing below is wanted.
pub(super) const DEAD: u16 = 0;
/// A message.
pub(super) const ROOT: u16 = 1;
/// The key of a map's entry.
pub(super) const KEY: u16 = 2;

/// `google.protobuf.Value.struct_value`, `Struct.fields`, and the value of a map's entry.
const STRUCT_VALUE: u32 = 5;
const STRUCT_FIELDS: u32 = 1;

// === impl Table ===

impl<F: Copy> Table<F> {
    /// Compiles paths such as `candidates=2.content=2.role=1`: names for the reader, numbers for
    /// the bytes. `{key}` leads from a `google.protobuf.Value` to the one of that key within it.
    pub fn new(paths: &[(&'static str, Take, F)]) -> Self {
        let mut table = Self { nodes: vec![Node::new(), Node::new(), Node::new()] };
        for &(path, take, field) in paths {
            table.add(path, take, field);
        }
        table
    }

    fn add(&mut self, path: &'static str, take: Take, field: F) {
        let mut node = ROOT;
        for part in path.split('.') {
            node = match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(key) => self.member(node, key),
                None => self.child(node, number(part)),
            };
        }
        let node = &mut self.nodes[usize::from(node)];
        match take {
            Take::Closed => node.closed = Some(field),
            take => node.take = Some((take, field)),
        }
    }

    fn child(&mut self, node: u16, field: u32) -> u16 {
        let known = self.find(node, field);
        if known != DEAD {
            return known;
        }
        let new = self.push();
        self.nodes[usize::from(node)].fields.push((field, new));
        new
    }

    fn member(&mut self, value: u16, key: &'static str) -> u16 {
        let members = self.child(value, STRUCT_VALUE);
        let entry = self.child(members, STRUCT_FIELDS);
        let known = self.find_key(entry, key.as_bytes());
        if known != DEAD {
            return known;
        }
        let new = self.push();
        self.nodes[usize::from(entry)].keys.push((key, new));
        new
    }

    fn push(&mut self) -> u16 {
        self.nodes.push(Node::new());
        u16::try_from(self.nodes.len() - 1).expect("tables are written by hand")
    }
}

impl<F> Table<F> {
    pub(super) fn node(&self, node: u16) -> &Node<F> {
        &self.nodes[usize::from(node)]
    }

    /// The node of a field, or [`DEAD`].
    pub(super) fn find(&self, node: u16, field: u32) -> u16 {
        let fields = &self.node(node).fields;
        fields.iter().find(|(known, _)| *known == field).map_or(DEAD, |(_, node)| *node)
    }

    /// The node of the value under a key, or [`DEAD`].
    pub(super) fn find_key(&self, node: u16, key: &[u8]) -> u16 {
        let keys = &self.node(node).keys;
        keys.iter().find(|(known, _)| known.as_bytes() == key).map_or(DEAD, |(_, node)| *node)
    }
}

impl<F> Node<F> {
    fn new() -> Self {
        Self { fields: Vec::new(), keys: Vec::new(), take: None, closed: None }
    }

    /// Whether this is an entry of a map, whose value depends on its key.
    pub(super) fn is_entry(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// `name=7`.
fn number(part: &str) -> u32 {
    let number = part.rsplit_once('=').and_then(|(_, number)| number.parse().ok());
    number.expect("tables are written by hand")
}
