//! Python pickles as values: read, never run.
//!
//! A pickle is a program for a small stack machine that may call any function of Python.
//! This reader knows the instructions that PyTorch's checkpoints are made of and, of functions and classes, only those
//! of [`Global`]; it builds values for them and refuses everything else by name.
//!
//! Values lie in one list and name each other by their place in it, so that what a pickle shares is stored once,
//! cycles do no harm, and nothing here recurses: what a file can make this reader hold is bounded by the file's size.
//!
//! Source: Python's `pickletools.py`, which documents each instruction; protocols 2 to 5.

use std::collections::HashMap;

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
    /// `argparse.Namespace`, with the dictionary of its attributes.
    Namespace(Option<Id>),
    /// The numbers behind tensors; they lie in a file of their own.
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

/// The numbers behind tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    pub kind: Kind,
    /// The name of its file: a text.
    pub key: Id,
    pub numel: i64,
}

/// The functions and classes that a checkpoint may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    OrderedDict,
    Namespace,
    RebuildTensor,
    RebuildParameter,
    Size,
    Device,
    Storage(Kind),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("argparse", "Namespace") => Self::Namespace,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
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
            _ => return None,
        })
    }
}

impl Pickle {
    /// Reads a pickle.
    ///
    /// # Errors
    /// What is wrong with it and at which byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        loop {
            let at = machine.at;
            let wrong = |problem: String| format!("{problem}, at byte {at} of its pickle");
            if let Some(root) = machine.step().map_err(wrong)? {
                let nodes = machine.nodes;
                return Ok(Self { nodes, root });
            }
        }
    }

    /// The whole.
    pub fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    /// The value at a place.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The entries of a dictionary whose keys are text; a later one of the same key comes later.
    pub fn entries<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let pairs: &[(Id, Id)] = match node {
            Node::Dict(pairs) => pairs,
            _ => &[],
        };
        pairs
            .iter()
            .filter_map(|&(key, value)| match self.node(key) {
                Node::Text(key) => Some((key.as_str(), self.node(value))),
                _ => None,
            })
    }

    /// The value of a key of text.
    pub fn get<'a>(&'a self, node: &'a Node, key: &str) -> Option<&'a Node> {
        self.entries(node)
            .filter(|(found, _)| *found == key)
            .last()
            .map(|(_, value)| value)
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack where sequences of arguments begin.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, String>;

impl Machine<'_> {
    /// Carries out one instruction; the whole value after the last.
    fn step(&mut self) -> Step<Option<Id>> {
        let opcode = self.byte()?;
        match opcode {
            // PROTO, FRAME: how the rest is written, which the instructions say again.
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("pickle protocol {other}, expected 2 to 5")),
            },
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Node::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            0x8a => {
                let len = self.byte()?;
                self.long(len.into())?;
            }
            0x8b => {
                let len = u32::from_le_bytes(self.array()?);
                self.long(len.into())?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value));
            }

            // Text; that of Python 2 as well.
            b'U' | 0x8c => {
                let len = self.byte()?;
                self.text(len.into())?;
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len.into())?;
            }
            0x8d => {
                let len = u64::from_le_bytes(self.array()?);
                self.text(len)?;
            }
            b'C' => {
                let len = self.byte()?;
                self.skip_bytes(len.into())?;
            }
            b'B' => {
                let len = u32::from_le_bytes(self.array()?);
                self.skip_bytes(len.into())?;
            }
            0x8e | 0x96 => {
                let len = u64::from_le_bytes(self.array()?);
                self.skip_bytes(len)?;
            }

            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Sequence(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let items = self.pop_many(count)?;
                self.push(Node::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_sequence(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_sequence(items)?;
            }

            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let pairs = pairs(&self.pop_mark()?)?;
                self.push(Node::Dict(pairs));
            }
            b's' => {
                let pair = self.pop_many(2)?;
                self.extend_dict(&pair)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }

            b'h' => {
                let place = self.byte()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place.into())?;
            }
            b'q' => {
                let place = self.byte()?;
                self.memorize(place.into())?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.memorize(place.into())?;
            }
            0x94 => self.memorize(self.memo.len() as u64)?,

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let [module, name] = self.pop_array()?;
                let (Node::Text(module), Node::Text(name)) =
                    (&self.nodes[module], &self.nodes[name])
                else {
                    return Err("a global whose name is no text".into());
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'R' | 0x81 => {
                let [callable, arguments] = self.pop_array()?;
                self.call(callable, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
            other => {
                return Err(match name(other) {
                    Some(name) => {
                        format!("the instruction {name}, which no checkpoint needs, is refused")
                    }
                    None => format!("0x{other:02x} is no instruction of a pickle"),
                });
            }
        }
        Ok(None)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("an instruction finds nothing on the stack".into());
        }
        Ok(self.stack.pop().expect("just checked"))
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Id>> {
        if self.stack.len() < self.floor() + count {
            return Err("an instruction finds too little on the stack".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_array<const N: usize>(&mut self) -> Step<[Id; N]> {
        Ok(self.pop_many(N)?.try_into().expect("N of them"))
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("an instruction finds no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => Err("an instruction finds nothing on the stack".into()),
        }
    }

    fn take(&mut self, len: u64) -> Step<&[u8]> {
        let rest = &self.bytes[self.at..];
        if len > rest.len() as u64 {
            return Err(format!(
                "{len} bytes are announced and {} are left",
                rest.len()
            ));
        }
        self.at += len as usize;
        Ok(&rest[..len as usize])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("N bytes"))
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or("a global whose name does not end")?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn text(&mut self, len: u64) -> Step<()> {
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn skip_bytes(&mut self, len: u64) -> Step<()> {
        self.take(len)?;
        self.push(Node::Opaque);
        Ok(())
    }

    /// A whole number of any length, little-endian in two's complement.
    fn long(&mut self, len: u64) -> Step<()> {
        let bytes = self.take(len)?;
        let node = if bytes.len() > 8 {
            Node::Opaque
        } else {
            let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) {
                0xff
            } else {
                0
            };
            let mut whole = [sign; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            Node::Int(i64::from_le_bytes(whole))
        };
        self.push(node);
        Ok(())
    }

    fn extend_sequence(&mut self, new: Vec<Id>) -> Step<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Sequence(items) => items.extend(new),
            _ => return Err("items are added to what is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        let new = pairs(items)?;
        match &mut self.nodes[top] {
            Node::Dict(entries) => entries.extend(new),
            _ => return Err("entries are added to what is no dictionary".into()),
        }
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Step<()> {
        let id = self.memo.get(&place);
        let id = *id.ok_or_else(|| format!("nothing is remembered as {place}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn memorize(&mut self, place: u64) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let global = Global::find(module, name).ok_or_else(|| {
            format!(
                "it names `{}`, which is not among what a checkpoint of weights needs",
                shortened(&format!("{module}.{name}"))
            )
        })?;
        self.push(Node::Global(global));
        Ok(())
    }

    /// What calling `callable` would give.
    fn call(&mut self, callable: Id, arguments: Id) -> Step<()> {
        let Node::Global(global) = self.nodes[callable] else {
            return Err("it calls what is no function".into());
        };
        let Node::Sequence(arguments) = &self.nodes[arguments] else {
            return Err("it calls a function with what are no arguments".into());
        };
        // An argument that is the result is pushed, not copied: a call costs a few bytes of the file, a copy any number.
        match (global, &arguments[..]) {
            (Global::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Global::OrderedDict, _) => {
                return Err("an OrderedDict that does not begin empty".into());
            }
            (Global::Namespace, _) => self.push(Node::Namespace(None)),
            (Global::Size, &[sizes]) => self.stack.push(sizes),
            (Global::Size, _) => return Err("a torch.Size that is not made of one tuple".into()),
            (Global::Device, _) => self.push(Node::Opaque),
            (Global::RebuildTensor, arguments) => {
                let tensor = self.tensor(arguments)?;
                self.push(tensor);
            }
            (Global::RebuildParameter, &[tensor, ..])
                if matches!(self.nodes[tensor], Node::Tensor { .. }) =>
            {
                self.stack.push(tensor);
            }
            (Global::RebuildParameter, _) => {
                return Err("a parameter that is not made of a tensor".into());
            }
            (Global::Storage(_), _) => return Err("it calls a storage".into()),
        }
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, ...)`.
    fn tensor(&self, arguments: &[Id]) -> Step<Node> {
        let wrong =
            || "a tensor that is not made of a storage, an offset, sizes and strides".to_string();
        let &[storage, offset, size, stride, ..] = arguments else {
            return Err(wrong());
        };
        let (Node::Storage(_), &Node::Int(offset)) = (&self.nodes[storage], &self.nodes[offset])
        else {
            return Err(wrong());
        };
        Ok(Node::Tensor {
            storage,
            offset,
            size: self.ints(size).ok_or_else(wrong)?,
            stride: self.ints(stride).ok_or_else(wrong)?,
        })
    }

    /// A short sequence of whole numbers: no checkpoint's tensors have more dimensions.
    fn ints(&self, id: Id) -> Option<Vec<i64>> {
        let Node::Sequence(items) = &self.nodes[id] else {
            return None;
        };
        let int = |&item: &Id| match self.nodes[item] {
            Node::Int(value) => Some(value),
            _ => None,
        };
        (items.len() <= 8)
            .then(|| items.iter().map(int).collect())
            .flatten()
    }

    /// Gives the object on top its attributes.
    fn build(&mut self, state: Id) -> Step<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Namespace(attributes) => *attributes = Some(state),
            // A state dictionary's `_metadata`: versions of modules.
            Node::Dict(_) | Node::Tensor { .. } | Node::Opaque => {}
            _ => return Err("attributes are given to what has none".into()),
        }
        Ok(())
    }

    /// `('storage', type, key, location, numel)`.
    fn persistent(&mut self, id: Id) -> Step<()> {
        let wrong = "a reference to a file that is no tensor's storage";
        let Node::Sequence(parts) = &self.nodes[id] else {
            return Err(wrong.into());
        };
        let &[tag, kind, key, _, numel] = &parts[..] else {
            return Err(wrong.into());
        };
        match [tag, kind, key, numel].map(|id| &self.nodes[id]) {
            [
                Node::Text(tag),
                &Node::Global(Global::Storage(kind)),
                Node::Text(_),
                &Node::Int(numel),
            ] if tag == "storage" => self.push(Node::Storage(Storage { kind, key, numel })),
            _ => return Err(wrong.into()),
        }
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a dictionary has a key without a value".into());
    }
    Ok(items
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

/// The names of the instructions that are refused.
fn name(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'P' => "PERSID",
        b'i' => "INST",
        b'o' => "OBJ",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'g' => "GET",
        b'p' => "PUT",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return None,
    })
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
