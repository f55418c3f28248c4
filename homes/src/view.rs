//! Views: which gateways there are, and which of them is the home of a principal.

use std::sync::Arc;

/// Identifies one process of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// UID of the pod.
    pub pod_uid: Arc<str>,
    /// Random value that the process has chosen at its start.
    pub epoch: Arc<str>,
}

/// Identifies a view. Later views are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId {
    /// Term of the leader that made the view. No two leaders have the same.
    pub term: u64,
    /// Number of the view in this term, from 1.
    pub number: u64,
}

/// The gateways among which the principals of a tenant are divided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    /// Identifies the view.
    pub id: ViewId,
    /// In order, without duplicates.
    members: Arc<[Member]>,
}

impl View {
    /// Creates a view.
    pub fn new(id: ViewId, members: impl IntoIterator<Item = Member>) -> Self {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort();
        members.dedup();
        Self { id, members: members.into() }
    }

    /// Returns the members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns whether a gateway is a member.
    pub fn contains(&self, member: &Member) -> bool {
        self.members.binary_search(member).is_ok()
    }

    /// Returns the home of a principal by rendezvous hashing: a change of the members moves only principals whose home
    /// leaves, or becomes a new member. None if there are no members.
    pub fn home(&self, principal_uid: &str) -> Option<&Member> {
        match &*self.members {
            // A tenant with one gateway does not pay for a hash.
            [only] => Some(only),
            members => members.iter().max_by_key(|member| weight(principal_uid, member)),
        }
    }
}

/// Returns how well a gateway suits a principal. A member that restarts keeps its principals, because only its pod counts.
fn weight(principal_uid: &str, member: &Member) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    // The length keeps the two texts apart.
    hasher.update(&(principal_uid.len() as u64).to_le_bytes());
    hasher.update(principal_uid.as_bytes());
    hasher.update(member.pod_uid.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn view(pods: &[u8]) -> View {
        let member = |pod: &u8| Member { pod_uid: format!("pod-{pod}").into(), epoch: "1".into() };
        View::new(ViewId { term: 1, number: 1 }, pods.iter().map(member))
    }

    proptest! {
        #[test]
        fn a_principal_moves_only_from_a_member_that_leaves_or_to_one_that_joins(
            before in prop::collection::vec(0_u8..12, 1..8),
            after in prop::collection::vec(0_u8..12, 1..8),
            principal in "[a-z0-9-]{1,36}",
        ) {
            let (before, after) = (view(&before), view(&after));
            let (old, new) = (before.home(&principal).unwrap(), after.home(&principal).unwrap());
            prop_assert!(old == new || !after.contains(old) || !before.contains(new));
        }
    }

    #[test]
    fn principals_are_divided_evenly() {
        let view = view(&[1, 2, 3]);
        let mut counts = [0_u32; 3];
        for principal in 0..3000 {
            let home = view.home(&format!("principal-{principal}")).unwrap();
            counts[view.members().iter().position(|member| member == home).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn nobody_is_at_home_in_a_view_without_members() {
        assert_eq!(view(&[]).home("p"), None);
    }
}
