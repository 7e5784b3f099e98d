//! Where in a pickle the tensors are.

use std::collections::BTreeMap;

use super::{Id, Node, Pickle};

/// Values that are looked at, and bytes of the names that they get; sharing could make both any number.
const MAX_VISITS: usize = 4 << 20;
const MAX_NAMES: usize = 64 << 20;
/// Dictionaries, modules and lists within each other.
const MAX_DEPTH: usize = 64;
/// A longer list is of numbers or of an optimizer's state.
const MAX_LIST: usize = 64;

/// What a module of PyTorch keeps its parts in; no part of a tensor's name.
const OF_MODULES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

impl Pickle {
    /// Every tensor that is reached through keys of text, attributes and short lists, under the names on the way to
    /// it, joined by dots: `model.blocks.0.norm1.weight`.
    ///
    /// Modules that were written whole have the names of their `state_dict`.
    /// What leads to no tensor is not followed, and nothing is followed into itself: configurations and trainers know
    /// what they are part of.
    ///
    /// # Errors
    /// If there are more than any checkpoint has.
    pub fn tensors(&self) -> Result<BTreeMap<String, Id>, String> {
        let leads = self.leads_to_tensors();
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), self.root, 0)];
        // From the whole to the value that is looked at.
        let mut way: Vec<Id> = Vec::new();
        let (mut visits, mut bytes) = (0, 0);
        while let Some((name, id, depth)) = open.pop() {
            way.truncate(depth);
            if way.contains(&id) {
                continue;
            }
            way.push(id);
            let node = self.node(id);
            visits +=
                1 + self.width(node) + self.attributes(node).map_or(0, |node| self.width(node));
            bytes += name.len();
            if visits > MAX_VISITS || bytes > MAX_NAMES {
                return Err("more names lead to its tensors than in any checkpoint".into());
            }
            if let Node::Tensor { .. } = node {
                found.entry(name).or_insert(id);
                continue;
            }
            if depth == MAX_DEPTH {
                continue;
            }
            let mut add = |part: &str, id: Id| {
                if !leads[id] {
                    return;
                }
                let name = match (name.is_empty(), part) {
                    (_, "") => name.clone(),
                    (true, part) => part.to_string(),
                    (false, part) => format!("{name}.{part}"),
                };
                // What is too long for a name is none.
                if name.len() <= 1024 {
                    open.push((name, id, depth + 1));
                }
            };
            // What comes last is looked at first, and a later entry of the same key is the one that counts.
            if let Some(attributes) = self.attributes(node) {
                for (key, id) in self.entries(attributes) {
                    let part = if OF_MODULES.contains(&key) { "" } else { key };
                    add(part, id);
                }
            }
            for (key, id) in self.entries(node) {
                add(key, id);
            }
            if let Node::Sequence(items) = node
                && items.len() <= MAX_LIST
            {
                for (i, &id) in items.iter().enumerate() {
                    add(&i.to_string(), id);
                }
            }
        }
        Ok(found)
    }

    /// How many values it holds directly.
    fn width(&self, node: &Node) -> usize {
        match node {
            Node::Dict(pairs) => pairs.len(),
            Node::Sequence(items) => items.len(),
            Node::Object(object) => object.entries.len() + self.made_of(object).len(),
            _ => 0,
        }
    }

    /// Of each value, whether a tensor is reached from it.
    fn leads_to_tensors(&self) -> Vec<bool> {
        // Who holds whom: each value's holders follow each other, from `starts` on.
        let mut starts = vec![0; self.nodes.len() + 1];
        self.for_each_held(|_, held| starts[held + 1] += 1);
        for i in 0..self.nodes.len() {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut holders = vec![0; starts[self.nodes.len()]];
        self.for_each_held(|holder, held| {
            holders[next[held]] = holder;
            next[held] += 1;
        });
        let mut leads: Vec<bool> = (self.nodes.iter())
            .map(|node| matches!(node, Node::Tensor { .. }))
            .collect();
        let mut open: Vec<Id> = (0..leads.len()).filter(|&id| leads[id]).collect();
        while let Some(id) = open.pop() {
            for &holder in &holders[starts[id]..starts[id + 1]] {
                if !leads[holder] {
                    leads[holder] = true;
                    open.push(holder);
                }
            }
        }
        leads
    }

    /// Calls `each` with every value that holds others, and each of these.
    fn for_each_held(&self, mut each: impl FnMut(Id, Id)) {
        for (id, node) in self.nodes.iter().enumerate() {
            match node {
                Node::Sequence(items) => items.iter().for_each(|&held| each(id, held)),
                Node::Dict(pairs) => pairs.iter().for_each(|&(_, held)| each(id, held)),
                Node::Object(object) => {
                    let entries = object.entries.iter().map(|&(_, held)| held);
                    entries
                        .chain(object.state)
                        .chain([object.arguments])
                        .for_each(|held| each(id, held));
                }
                _ => {}
            }
        }
    }
}
