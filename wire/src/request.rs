//! What the body of a request says that its head did not: the model, and whether to stream.

use std::sync::LazyLock;

use crate::dialect::Asks;
use crate::json::{Reader, Scalar, Sink, Table, Want};

static PATHS: LazyLock<Table<Field>> = LazyLock::new(|| {
    Table::new(&[("model", Want::Value, Field::Model), ("stream", Want::Value, Field::Stream)])
});

#[derive(Clone, Copy, Debug)]
enum Field {
    Model,
    Stream,
}

/// A request whose body is read as far as it may say something.
#[derive(Debug)]
pub(crate) struct Request {
    asks: Asks,
    reader: Option<Box<Reader<Field>>>,
    said: Said,
}

#[derive(Debug, Default)]
struct Said {
    model: Option<String>,
    stream: Option<bool>,
    is_whole: bool,
}

// === impl Request ===

impl Request {
    pub(crate) fn new(asks: Asks) -> Self {
        let is_asked = asks != Asks::default();
        let reader = is_asked.then(|| Box::new(Reader::new(&PATHS)));
        Self { asks, reader, said: Said::default() }
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8]) {
        let Some(reader) = &mut self.reader else { return };
        let is_broken = reader.feed(bytes, &mut self.said).is_err();
        if is_broken || self.said.is_whole || self.knows_all() {
            self.reader = None;
        }
    }

    fn knows_all(&self) -> bool {
        (!self.asks.model || self.said.model.is_some())
            && (!self.asks.stream || self.said.stream.is_some())
    }

    /// Whether more of the body could say something.
    pub(crate) fn reads(&self) -> bool {
        self.reader.is_some()
    }

    pub(crate) fn awaits_model(&self) -> bool {
        self.reads() && self.asks.model && self.said.model.is_none()
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.said.model.as_deref()
    }

    /// Whether to stream: a body that was read to its end and does not ask for it does not want it.
    pub(crate) fn stream(&self) -> Option<bool> {
        let default = (self.asks.stream && self.said.is_whole).then_some(false);
        self.said.stream.or(default)
    }
}

impl Sink<Field> for Said {
    /// What is said first holds: nobody may have waited for more.
    fn value(&mut self, field: Field, value: Scalar<'_>) {
        match (field, value) {
            _ if self.is_whole => {}
            (Field::Model, Scalar::Text(model)) if !model.is_empty() => {
                self.model.get_or_insert_with(|| String::from_utf8_lossy(model).into_owned());
            }
            (Field::Stream, Scalar::Bool(stream)) => {
                self.stream.get_or_insert(stream);
            }
            _ => {}
        }
    }

    fn seen(&mut self, _: Field) {}

    fn fragment(&mut self, _: Field, _: &[u8]) {}

    fn closed(&mut self, _: Field, _: u32) {}

    fn item(&mut self) {
        self.is_whole = true;
    }
}
