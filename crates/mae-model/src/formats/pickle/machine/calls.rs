//! What the calls of a pickle and its references to numbers would give.

use super::{Global, Id, Machine, Node, Object, Step, Storage};

impl Machine<'_> {
    /// What calling `callable` would give.
    pub fn call(&mut self, callable: Id, arguments: Id) -> Step<()> {
        let object = |entries| {
            Node::Object(Box::new(Object {
                class: callable,
                arguments,
                state: None,
                entries,
            }))
        };
        let (Node::Global(global), Node::Sequence(given)) =
            (&self.nodes[callable], &self.nodes[arguments])
        else {
            self.push(object(Vec::new()));
            return Ok(());
        };
        // An argument that is the result is pushed, not copied: a call costs a few bytes of the file, a copy any number.
        match (global, &given[..]) {
            (Global::Dict, []) => self.push(Node::Dict(Vec::new())),
            (Global::Dict, _) => self.push(object(Vec::new())),
            (Global::Size, &[sizes]) => self.stack.push(sizes),
            (Global::Size, _) => self.push(Node::Opaque),
            (Global::RebuildTensor, given) => {
                let tensor = self.tensor(given)?;
                self.push(tensor);
            }
            (Global::RebuildParameter, &[tensor, ..]) => self.stack.push(tensor),
            (Global::RebuildParameter, []) => {
                return Err("a parameter that is not made of a tensor".into());
            }
            // (function, type, arguments, attributes): a tensor of a class of its own.
            (Global::RebuildFromType, &[function, _, arguments, ..]) => {
                let is_itself = Node::Global(Global::RebuildFromType) == self.nodes[function];
                match is_itself {
                    true => self.push(Node::Opaque),
                    false => self.call(function, arguments)?,
                }
            }
            (Global::RebuildFromType, _) => self.push(Node::Opaque),
            (Global::Storage(_), _) => self.push(Node::Opaque),
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
        let offset = match (&self.nodes[storage], &self.nodes[offset]) {
            (Node::Storage(_), &Node::Int(offset)) => offset,
            // Of numbers that this reader does not know, as complex ones.
            (Node::Opaque, _) => return Ok(Node::Opaque),
            _ => return Err(wrong()),
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
    pub fn build(&mut self, state: Id) -> Step<()> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Object(object) => object.state = Some(state),
            Node::None | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Text(_) => {
                return Err("attributes are given to what has none".into());
            }
            // A state dictionary's `_metadata`: versions of modules.
            _ => {}
        }
        Ok(())
    }

    /// `('storage', type, key, location, numel)`; before PyTorch 1.6 followed by None or `(key, offset, numel)` of a part
    /// of it, and a class may be `('module', class, file, source)`.
    pub fn persistent(&mut self, id: Id) -> Step<()> {
        let wrong = || "a reference to numbers that says not which".to_string();
        let Node::Sequence(parts) = &self.nodes[id] else {
            self.push(Node::Opaque);
            return Ok(());
        };
        let tag = parts.first().map(|&tag| &self.nodes[tag]);
        match (tag, &parts[..]) {
            (Some(Node::Text(tag)), &[_, class, ..]) if tag == "module" => {
                self.stack.push(class);
                return Ok(());
            }
            (Some(Node::Text(tag)), _) if tag == "storage" => {}
            _ => {
                self.push(Node::Opaque);
                return Ok(());
            }
        }
        let &[_, kind, key, _, numel, ref rest @ ..] = &parts[..] else {
            return Err(wrong());
        };
        let kind = match self.nodes[kind] {
            Node::Global(Global::Storage(kind)) => kind,
            _ => {
                self.push(Node::Opaque);
                return Ok(());
            }
        };
        let (Node::Text(_), &Node::Int(numel)) = (&self.nodes[key], &self.nodes[numel]) else {
            return Err(wrong());
        };
        let mut storage = Storage {
            kind,
            key,
            numel,
            offset: 0,
        };
        if let Some(Node::Sequence(part)) = rest.first().map(|&part| &self.nodes[part]) {
            let int = |at: usize| match part.get(at).map(|&id| &self.nodes[id]) {
                Some(&Node::Int(value)) => Ok(value),
                _ => Err(wrong()),
            };
            storage.offset = int(1)?;
        }
        self.push(Node::Storage(storage));
        Ok(())
    }

    /// The same as text, as protocol 0 has it; PyTorch writes such files, and does not read them.
    pub fn persistent_text(&mut self, id: &[u8]) -> Step<()> {
        let storage = std::str::from_utf8(id).ok().and_then(storage_in_text);
        let Some((class, key, numel)) = storage else {
            self.push(Node::Opaque);
            return Ok(());
        };
        let (module, name) = class.rsplit_once('.').unwrap_or(("", class));
        let Some(Global::Storage(kind)) = Global::find(module, name) else {
            self.push(Node::Opaque);
            return Ok(());
        };
        let key = self.add(Node::Text(key.into()));
        self.push(Node::Storage(Storage {
            kind,
            key,
            numel,
            offset: 0,
        }));
        Ok(())
    }
}

/// `('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 6)`, split: class, key and numel.
fn storage_in_text(text: &str) -> Option<(&str, &str, i64)> {
    let parts = text
        .strip_prefix("('storage', <class '")?
        .strip_suffix(')')?;
    let (class, parts) = parts.split_once("'>, '")?;
    let (key, parts) = parts.split_once("', '")?;
    let (_, numel) = parts.split_once("', ")?;
    // Before PyTorch 1.6 followed by None.
    let numel = numel.strip_suffix(", None").unwrap_or(numel);
    Some((class, key, numel.parse().ok()?))
}
