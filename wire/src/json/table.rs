//! The paths that a reader looks for.

/// What is wanted of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Its scalar.
    Value,
    /// Whether it is anything but null or an empty string.
    Seen,
    /// Whether it is a string with text in it.
    Text,
    /// Its text, in pieces as they come.
    Fragments,
    /// The moment when its object closes.
    Closed,
}

/// The wanted paths, as a tree.
#[derive(Debug)]
pub struct Table<F> {
    nodes: Vec<Node<F>>,
}

/// One step along the paths.
#[derive(Debug)]
pub(super) struct Node<F> {
    pub(super) keys: Vec<(&'static [u8], u16)>,
    /// By length, whether a key is so long.
    lengths: u64,
    /// The node of the elements, if this is an array.
    pub(super) each: u16,
    pub(super) want: Option<(Want, F)>,
    /// The field that wants to know when this closes.
    pub(super) closed: Option<F>,
}

/// Nothing below is wanted.
pub(super) const DEAD: u16 = 0;
/// An item.
pub(super) const ROOT: u16 = 1;
/// An array at the root, whose elements are items.
pub(super) const ITEMS: u16 = 2;

// === impl Table ===

impl<F: Copy> Table<F> {
    /// Compiles paths such as `choices[*].delta.content`; `[*]` stands for every element.
    pub fn new(paths: &[(&'static str, Want, F)]) -> Self {
        let mut table = Self { nodes: vec![Node::new(), Node::new(), Node::new()] };
        table.nodes[usize::from(ITEMS)].each = ROOT;
        for &(path, want, field) in paths {
            table.add(path, want, field);
        }
        table
    }

    fn add(&mut self, path: &'static str, want: Want, field: F) {
        let mut node = ROOT;
        for part in path.split('.') {
            let (key, each) = part.strip_suffix("[*]").map_or((part, false), |key| (key, true));
            node = self.child(node, key.as_bytes());
            if each {
                node = self.each(node);
            }
        }
        let node = &mut self.nodes[usize::from(node)];
        match want {
            Want::Closed => node.closed = Some(field),
            want => node.want = Some((want, field)),
        }
    }

    fn child(&mut self, node: u16, key: &'static [u8]) -> u16 {
        let known = self.find(node, key);
        if known != DEAD {
            return known;
        }
        let new = self.push();
        let node = &mut self.nodes[usize::from(node)];
        node.keys.push((key, new));
        node.lengths |= length_bit(key);
        new
    }

    fn each(&mut self, node: u16) -> u16 {
        if self.node(node).each == DEAD {
            self.nodes[usize::from(node)].each = self.push();
        }
        self.node(node).each
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

    /// The node of a key, or [`DEAD`].
    pub(super) fn find(&self, node: u16, key: &[u8]) -> u16 {
        let node = self.node(node);
        if node.lengths & length_bit(key) == 0 {
            return DEAD;
        }
        // Lengths and first letters tell most keys apart without a look at the rest.
        let is_key = |known: &&'static [u8]| {
            known.len() == key.len() && known.first() == key.first() && *known == key
        };
        node.keys.iter().find(|(known, _)| is_key(known)).map_or(DEAD, |(_, node)| *node)
    }
}

impl<F> Node<F> {
    fn new() -> Self {
        Self { keys: Vec::new(), lengths: 0, each: DEAD, want: None, closed: None }
    }
}

/// All keys of 63 bytes and more share a bit.
fn length_bit(key: &[u8]) -> u64 {
    1 << key.len().min(63)
}
