//! Python pickles as values: read, never run.
//!
//! A pickle is a program for a small stack machine that may call any function of Python.
//! This reader knows its instructions and, of functions and classes, those of [`Global`], which tensors are made with;
//! it builds values for them.
//! Calls of anything else become an [`Object`]: what was called with what, and nothing happens.
//!
//! Values lie in one list and name each other by their place in it, so that what a pickle shares is stored once,
//! cycles do no harm, and nothing here recurses: what a file can make this reader hold is bounded by the file's size,
//! and by a number of values that no checkpoint comes near.
//!
//! Source: Python's `pickletools.py`, which documents each instruction; protocols 0 to 5.

mod machine;
mod tensors;

use tch::Kind;

/// A value's place in [`Pickle::nodes`].
pub type Id = usize;

/// A pickle's values, and which of them is the whole.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A tuple, list or set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A class or function that means nothing here: the texts of its module and name.
    Unknown {
        module: Id,
        name: Id,
    },
    Object(Box<Object>),
    /// The numbers behind tensors; they lie elsewhere in the file.
    Storage(Storage),
    /// A view of a storage: where it begins, its shape, and how far apart neighbours are, all in elements.
    Tensor {
        storage: Id,
        offset: i64,
        size: Vec<i64>,
        stride: Vec<i64>,
    },
    /// What is of no use here: bytes, devices, whole numbers of more than 64 bits.
    Opaque,
}

/// What calling something would give.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What is called.
    class: Id,
    /// With what.
    arguments: Id,
    /// The attributes it was given.
    state: Option<Id>,
    /// What was stored in it as in a dictionary.
    entries: Vec<(Id, Id)>,
}

/// The numbers behind tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub kind: Kind,
    /// The name of its file: a text.
    pub key: Id,
    pub numel: i64,
    /// Where in the numbers of that name it begins; files from before PyTorch 1.6 may say another place than 0.
    pub offset: i64,
}

/// The functions and classes that tensors and their dictionaries are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    Dict,
    RebuildTensor,
    RebuildParameter,
    RebuildFromType,
    Size,
    Storage(Kind),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Self::Dict,
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Size") => Self::Size,
            ("torch", "FloatStorage") => Self::Storage(Kind::Float),
            ("torch", "DoubleStorage") => Self::Storage(Kind::Double),
            ("torch", "HalfStorage") => Self::Storage(Kind::Half),
            ("torch", "BFloat16Storage") => Self::Storage(Kind::BFloat16),
            ("torch", "LongStorage") => Self::Storage(Kind::Int64),
            ("torch", "IntStorage") => Self::Storage(Kind::Int),
            ("torch", "ShortStorage") => Self::Storage(Kind::Int16),
            ("torch", "CharStorage") => Self::Storage(Kind::Int8),
            ("torch", "ByteStorage") => Self::Storage(Kind::Uint8),
            ("torch", "BoolStorage") => Self::Storage(Kind::Bool),
            // Of no use to a model, but the older format has its numbers between the others'.
            ("torch", "ComplexFloatStorage") => Self::Storage(Kind::ComplexFloat),
            ("torch", "ComplexDoubleStorage") => Self::Storage(Kind::ComplexDouble),
            ("torch", "QInt8Storage") => Self::Storage(Kind::QInt8),
            ("torch", "QUInt8Storage") => Self::Storage(Kind::QUInt8),
            ("torch", "QInt32Storage") => Self::Storage(Kind::QInt32),
            ("torch" | "torch.storage", "UntypedStorage") => Self::Storage(Kind::Uint8),
            // Before 1.6 the storages of a GPU were of classes of their own.
            ("torch.cuda", name) => return Self::find("torch", name),
            _ => return None,
        })
    }
}

impl Pickle {
    #[cfg(test)]
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self::parse_first(bytes)?.0)
    }

    /// Reads the first of several pickles that follow each other, and where it ends.
    ///
    /// # Errors
    /// What is wrong with it and at which byte.
    pub fn parse_first(bytes: &[u8]) -> Result<(Self, usize), String> {
        machine::run(bytes)
    }

    /// The whole.
    pub fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    /// The value at a place.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// All values, in the order in which they were made.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The entries of a dictionary, or of an object that is used as one, whose keys are text; a later one of the same
    /// key comes later.
    pub fn entries<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = (&'a str, Id)> {
        let (first, pairs): (&[Id], &[(Id, Id)]) = match node {
            Node::Dict(pairs) => (&[], pairs),
            Node::Object(object) => (self.made_of(object), &object.entries),
            _ => (&[], &[]),
        };
        let first = first.iter().filter_map(|&pair| match self.node(pair) {
            Node::Sequence(pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        });
        (first.chain(pairs.iter().copied())).filter_map(|(key, value)| match self.node(key) {
            Node::Text(key) => Some((key.as_str(), value)),
            _ => None,
        })
    }

    /// The pairs that a dictionary is called with.
    fn made_of(&self, object: &Object) -> &[Id] {
        let is_dict = self.nodes[object.class] == Node::Global(Global::Dict);
        match self.node(object.arguments) {
            Node::Sequence(arguments) if is_dict => match arguments[..] {
                [pairs] => match self.node(pairs) {
                    Node::Sequence(pairs) => pairs,
                    _ => &[],
                },
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The value of a key of text.
    pub fn get<'a>(&'a self, node: &'a Node, key: &str) -> Option<&'a Node> {
        self.entries(node)
            .filter(|(found, _)| *found == key)
            .last()
            .map(|(_, value)| self.node(value))
    }

    /// The dictionary of an object's attributes.
    pub fn attributes(&self, node: &Node) -> Option<&Node> {
        let Node::Object(object) = node else {
            return None;
        };
        match self.node(object.state?) {
            // Those of `__slots__` come second.
            Node::Sequence(parts) => parts.first().map(|&id| self.node(id)),
            state => Some(state),
        }
    }

    /// The value under a name of keys, parts of modules and attributes: `model.blocks.0.attn.num_heads`.
    pub fn attribute(&self, name: &str) -> Option<&Node> {
        let mut node = self.root();
        for part in name.split('.') {
            let attributes = self.attributes(node);
            let modules = attributes.and_then(|attributes| self.get(attributes, "_modules"));
            node = [Some(node), modules, attributes]
                .into_iter()
                .flatten()
                .find_map(|holder| self.get(holder, part))?;
        }
        Some(node)
    }

    /// The names of classes and functions that mean nothing here, once each, in alphabetical order.
    pub fn unknown(&self) -> Vec<String> {
        let mut places: Vec<(Id, Id)> = (self.nodes.iter())
            .filter_map(|node| match *node {
                Node::Unknown { module, name } => Some((module, name)),
                _ => None,
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        let text = |id: Id| match self.node(id) {
            Node::Text(text) => shortened(text),
            _ => String::new(),
        };
        let mut names: Vec<String> = (places.into_iter())
            .map(|(module, name)| format!("{}.{}", text(module), text(name)))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A name of a hostile file is not to fill the screen.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests;
