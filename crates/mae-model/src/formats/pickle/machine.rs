//! The stack machine that a pickle is a program for.

mod calls;

use std::collections::HashMap;

use super::{Global, Id, Node, Object, Pickle, Storage};

/// Values that a pickle may have, and places on the stack: a checkpoint has some ten thousand.
const MAX_VALUES: usize = 4 << 20;

/// Carries out a pickle; where it ends.
pub fn run(bytes: &[u8]) -> Result<(Pickle, usize), String> {
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
            return Ok((Pickle { nodes, root }, machine.at));
        }
        machine.check_size().map_err(wrong)?;
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

impl<'a> Machine<'a> {
    /// Carries out one instruction; the whole value after the last.
    fn step(&mut self) -> Step<Option<Id>> {
        let opcode = self.byte()?;
        match opcode {
            // PROTO, FRAME: how the rest is written, which the instructions say again.
            0x80 => match self.byte()? {
                0..=5 => {}
                other => return Err(format!("pickle protocol {other}, expected 0 to 5")),
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

            // As lines, in protocol 0.
            b'I' => {
                let node = match self.line()? {
                    b"00" => Node::Bool(false),
                    b"01" => Node::Bool(true),
                    digits => whole(digits),
                };
                self.push(node);
            }
            b'L' => {
                let node = whole(self.line()?);
                self.push(node);
            }
            b'F' => {
                let value = std::str::from_utf8(self.line()?).ok();
                let value = value.and_then(|value| value.parse().ok());
                self.push(value.map_or(Node::Opaque, Node::Float));
            }
            b'S' => {
                let quoted = self.line()?;
                let text = quoted.get(1..quoted.len().saturating_sub(1));
                let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
                self.push(Node::Text(text));
            }
            b'V' => {
                let text = String::from_utf8_lossy(self.line()?).into_owned();
                self.push(Node::Text(text));
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
            b'g' => {
                let place = self.number()?;
                self.recall(place)?;
            }
            b'p' => {
                let place = self.number()?;
                self.memorize(place)?;
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
                let global = self.global_of_lines()?;
                self.stack.push(global);
            }
            0x93 => {
                let [module, name] = self.pop_array()?;
                let global = self.global(module, name)?;
                self.stack.push(global);
            }
            b'R' | 0x81 => {
                let [callable, arguments] = self.pop_array()?;
                self.call(callable, arguments)?;
            }
            // NEWOBJ_EX: with arguments by name, too.
            0x92 => {
                let [callable, arguments, _] = self.pop_array()?;
                self.call(callable, arguments)?;
            }
            b'i' => {
                let callable = self.global_of_lines()?;
                let arguments = self.pop_mark()?;
                let arguments = self.add(Node::Sequence(arguments));
                self.call(callable, arguments)?;
            }
            b'o' => {
                let parts = self.pop_mark()?;
                let Some((&callable, arguments)) = parts.split_first() else {
                    return Err("it calls nothing".into());
                };
                let arguments = self.add(Node::Sequence(arguments.to_vec()));
                self.call(callable, arguments)?;
            }
            // EXT1, EXT2, EXT4: numbers for functions, which only the program that wrote them knows.
            0x82 => {
                self.take(1)?;
                self.push(Node::Opaque);
            }
            0x83 => {
                self.take(2)?;
                self.push(Node::Opaque);
            }
            0x84 => {
                self.take(4)?;
                self.push(Node::Opaque);
            }
            // NEXT_BUFFER, READONLY_BUFFER: bytes that are not in the file.
            0x97 => self.push(Node::Opaque),
            0x98 => drop(self.top()?),
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
            b'P' => {
                let id = self.line()?;
                self.persistent_text(id)?;
            }
            other => return Err(format!("0x{other:02x} is no instruction of a pickle")),
        }
        Ok(None)
    }

    fn check_size(&self) -> Step<()> {
        let sizes = [&self.nodes.len(), &self.stack.len(), &self.marks.len()];
        match sizes.into_iter().chain([&self.memo.len()]).max() {
            Some(&size) if size > MAX_VALUES => Err(format!(
                "more than {MAX_VALUES} values, which no checkpoint has"
            )),
            _ => Ok(()),
        }
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn push(&mut self, node: Node) {
        let id = self.add(node);
        self.stack.push(id);
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

    fn take(&mut self, len: u64) -> Step<&'a [u8]> {
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

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or("a name or number that does not end")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    /// A line with a place of the memo.
    fn number(&mut self) -> Step<u64> {
        let line = self.line()?;
        let number = std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.parse().ok());
        number.ok_or_else(|| "a place that is no number".into())
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
            Node::Object(_) | Node::Opaque => {}
            _ => return Err("items are added to what is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        let new = pairs(items)?;
        match &mut self.nodes[top] {
            Node::Dict(entries) => entries.extend(new),
            Node::Object(object) => object.entries.extend(new),
            Node::Opaque => {}
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

    fn global_of_lines(&mut self) -> Step<Id> {
        let mut name = || -> Step<Id> {
            let name = String::from_utf8_lossy(self.line()?).into_owned();
            Ok(self.add(Node::Text(name)))
        };
        let (module, name) = (name()?, name()?);
        self.global(module, name)
    }

    fn global(&mut self, module: Id, name: Id) -> Step<Id> {
        let known = match (&self.nodes[module], &self.nodes[name]) {
            (Node::Text(module), Node::Text(name)) => Global::find(module, name),
            _ => return Err("a global whose name is no text".into()),
        };
        Ok(self.add(match known {
            Some(global) => Node::Global(global),
            None => Node::Unknown { module, name },
        }))
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

/// A whole number in digits; Python 2 ended long ones with an L.
fn whole(digits: &[u8]) -> Node {
    let digits = digits.strip_suffix(b"L").unwrap_or(digits);
    let value = std::str::from_utf8(digits).ok();
    value
        .and_then(|value| value.parse().ok())
        .map_or(Node::Opaque, Node::Int)
}
