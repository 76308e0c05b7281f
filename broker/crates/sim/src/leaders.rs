//! Who led what. Elections are watched from outside: what nodes say of their leaders is enough to
//! see a vote that was given twice, or forgotten, long before a record is lost by it.

use std::collections::{BTreeMap, BTreeSet};

/// A group's number.
pub type Group = u64;
/// A term of a group.
pub type Term = u64;

/// What nodes have said of their leaders so far.
#[derive(Debug, Default)]
pub struct Leaders {
    /// The one leader of each term.
    of_terms: BTreeMap<(Group, Term), u64>,
    /// The newest term in which a node has heard of a leader.
    newest: BTreeMap<(String, Group), Term>,
    /// Nodes that have lost their disks and were not let in again: they take part in nothing.
    outside: BTreeSet<String>,
    broken: Option<String>,
}

impl Leaders {
    /// A node has heard who leads a group in a term.
    pub fn heard(&mut self, node: &str, group: Group, term: Term, leader: u64) {
        if self.outside.contains(node) {
            self.break_with(format!(
                "{node} takes part in group {group} with a disk that was wiped, and nobody let it in"
            ));
        }
        let first = *self.of_terms.entry((group, term)).or_insert(leader);
        if first != leader {
            self.break_with(format!(
                "group {group} has two leaders in term {term}: brokers {first} and {leader}"
            ));
        }
        let newest = self.newest.entry((node.to_owned(), group)).or_insert(term);
        if *newest > term {
            let known = *newest;
            self.break_with(format!(
                "{node} follows a leader of term {term} in group {group}, but it knew of term {known}"
            ));
        } else {
            *newest = term;
        }
    }

    /// A node starts with the term that it remembers of a group; 0 if it remembers none.
    pub fn recovered(&mut self, node: &str, group: Group, term: Term) {
        let newest = self.newest.get(&(node.to_owned(), group));
        if let Some(known) = newest.copied().filter(|known| *known > term) {
            self.break_with(format!(
                "{node} starts group {group} with term {term}, but it knew of term {known}"
            ));
        }
    }
    /// A node gives up what it remembers of a group that it is no member of.
    pub fn forgotten(&mut self, node: &str, group: Group) {
        self.newest.remove(&(node.to_owned(), group));
    }

    /// A node has lost its disk, and with it what it knew of terms.
    pub fn wiped(&mut self, node: &str) {
        self.newest.retain(|(known, _), _| known != node);
        self.outside.insert(node.to_owned());
    }
    /// Somebody lets it in, or tries to.
    pub fn let_in(&mut self, node: &str) {
        self.outside.remove(node);
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn break_with(&mut self, how: String) {
        self.broken.get_or_insert(how);
    }
}

#[cfg(test)]
#[path = "leaders_tests.rs"]
mod tests;
