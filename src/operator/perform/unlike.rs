//! Nodes on which the name of the pod's image means another image: the next attempt keeps away from them where another node
//! fits. Pure.
//!
//! What one operator has found is not written down: one that takes over finds it out anew, before anything is stopped.

use std::collections::BTreeSet;

use crate::api::NodeName;

#[derive(Debug, Default)]
pub struct Unlike {
    nodes: BTreeSet<NodeName>,
    /// The scheduler takes none of the others.
    in_vain: bool,
}

impl Unlike {
    /// Takes note of a node. True where that is known already: there it will not be otherwise.
    pub fn note(&mut self, node: &NodeName) -> bool {
        !self.nodes.insert(node.clone())
    }

    pub fn knows_any(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The nodes to keep away from, of those that have room; none where no other is left.
    pub fn avoided(&self, fitting: &[NodeName]) -> Vec<NodeName> {
        let others = fitting.iter().any(|node| !self.nodes.contains(node));
        if self.in_vain || !others { Vec::new() } else { self.nodes.iter().cloned().collect() }
    }

    /// Keeping away was of no use: it is not tried once more.
    pub fn avoided_in_vain(&mut self) {
        self.in_vain = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_another_image_is_avoided_where_another_fits_and_told_for_good_the_second_time() {
        let nodes = |names: &[&str]| names.iter().map(|name| NodeName::from(*name)).collect::<Vec<_>>();
        let mut unlike = Unlike::default();
        assert_eq!(unlike.avoided(&nodes(&["n2", "n3"])), nodes(&[]));
        assert!(!unlike.knows_any() && !unlike.note(&"n2".into()) && unlike.knows_any());
        assert_eq!(unlike.avoided(&nodes(&["n2", "n3"])), nodes(&["n2"]));
        assert_eq!(unlike.avoided(&nodes(&["n2"])), nodes(&[]), "there is no other");
        assert_eq!(unlike.avoided(&nodes(&[])), nodes(&[]));
        assert!(!unlike.note(&"n3".into()) && unlike.note(&"n2".into()));
        assert_eq!(unlike.avoided(&nodes(&["n2", "n3"])), nodes(&[]));
        unlike.avoided_in_vain();
        assert_eq!(unlike.avoided(&nodes(&["n2", "n4"])), nodes(&[]));
    }
}
