//! Assignors: which member of a group gets which partitions of its one topic.

use crate::kafka::protocol::{GroupMember, PartitionId, RebalanceProtocol};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All members with their partitions.
pub(crate) type Assignments = Vec<(Arc<str>, Vec<PartitionId>)>;

/// Runs the assignor of `protocol` over `partitions` partitions.
pub(crate) fn assign(
    protocol: RebalanceProtocol,
    members: &[GroupMember],
    partitions: u32,
) -> Assignments {
    match protocol {
        RebalanceProtocol::Eager => range(members, partitions),
        RebalanceProtocol::Cooperative => cooperative(members, partitions),
    }
}

fn all(partitions: u32) -> impl Iterator<Item = PartitionId> {
    let count = i32::try_from(partitions).expect("partition counts fit");
    (0..count).map(PartitionId)
}

/// `range`: contiguous parts in the order of member ids, the first ones larger by one.
fn range(members: &[GroupMember], partitions: u32) -> Assignments {
    let mut ids: Vec<Arc<str>> = members.iter().map(|m| m.member_id.clone()).collect();
    ids.sort_unstable();
    let quotas = quotas(partitions, ids.len());
    let mut rest = all(partitions);
    ids.into_iter()
        .zip(quotas)
        .map(|(id, quota)| (id, rest.by_ref().take(quota).collect()))
        .collect()
}

/// Fair shares of `partitions` among `members`, larger ones first.
fn quotas(partitions: u32, members: usize) -> Vec<usize> {
    let partitions = usize::try_from(partitions).expect("fits");
    (0..members)
        .map(|index| partitions / members + usize::from(index < partitions % members))
        .collect()
}

/// `cooperative-sticky` (KIP-429): balanced, members keep what they own as far as balance allows,
/// and a partition that has to move is given to nobody until its owner has given it up.
fn cooperative(members: &[GroupMember], partitions: u32) -> Assignments {
    let owners = owners(members, partitions);
    let target = sticky(members, &owners, partitions);
    let mut claimed: BTreeMap<PartitionId, BTreeSet<&Arc<str>>> = BTreeMap::new();
    for member in members {
        for partition in &member.subscription.owned {
            let claims = claimed.entry(*partition).or_default();
            claims.insert(&member.member_id);
        }
    }
    let free = |id: &Arc<str>, partition: &PartitionId| {
        claimed
            .get(partition)
            .is_none_or(|claims| claims.iter().all(|claimant| *claimant == id))
    };
    // An owner keeps its partition at once even if a stale claim of somebody else exists.
    let stays = |id: &Arc<str>, partition: &PartitionId| owners.get(partition) == Some(id);
    target
        .into_iter()
        .map(|(id, mut given)| {
            given.retain(|partition| stays(&id, partition) || free(&id, partition));
            (id, given)
        })
        .collect()
}

/// Who owns what: the claim of the newest generation counts, and of equal ones none.
fn owners(members: &[GroupMember], partitions: u32) -> BTreeMap<PartitionId, Arc<str>> {
    let mut best: BTreeMap<PartitionId, (i32, Option<Arc<str>>)> = BTreeMap::new();
    let exists: BTreeSet<PartitionId> = all(partitions).collect();
    for member in members {
        let generation = member.subscription.owned_generation;
        for partition in member.subscription.owned.iter() {
            if !exists.contains(partition) {
                continue;
            }
            let claim = (generation, Some(member.member_id.clone()));
            match best.get_mut(partition) {
                None => {
                    best.insert(*partition, claim);
                }
                Some(known) if generation > known.0 => *known = claim,
                Some(known) if generation == known.0 => known.1 = None,
                Some(_) => {}
            }
        }
    }
    best.into_iter()
        .filter_map(|(partition, (_, owner))| owner.map(|owner| (partition, owner)))
        .collect()
}

/// The balanced assignment that moves least.
fn sticky(
    members: &[GroupMember],
    owners: &BTreeMap<PartitionId, Arc<str>>,
    partitions: u32,
) -> Assignments {
    let mut kept: BTreeMap<Arc<str>, Vec<PartitionId>> = members
        .iter()
        .map(|member| (member.member_id.clone(), Vec::new()))
        .collect();
    for (partition, owner) in owners {
        if let Some(list) = kept.get_mut(owner) {
            list.push(*partition);
        }
    }
    // The larger shares go to those who own most, so that the least is taken away.
    let mut order: Assignments = kept.into_iter().collect();
    order.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.cmp(&b.0)));
    let quotas = quotas(partitions, order.len());
    let mut taken: BTreeSet<PartitionId> = BTreeSet::new();
    for ((_, list), quota) in order.iter_mut().zip(&quotas) {
        list.truncate(*quota);
        taken.extend(list.iter().copied());
    }
    let mut rest = all(partitions).filter(|partition| !taken.contains(partition));
    for ((_, list), quota) in order.iter_mut().zip(&quotas) {
        let missing = quota - list.len();
        list.extend(rest.by_ref().take(missing));
        list.sort_unstable();
    }
    order.sort();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::{Subscription, TopicIndex};

    fn member(id: &str, owned: &[i32], generation: i32) -> GroupMember {
        GroupMember {
            member_id: id.into(),
            subscription: Subscription {
                topic: TopicIndex(2),
                owned: owned.iter().map(|p| PartitionId(*p)).collect(),
                owned_generation: generation,
            },
        }
    }

    fn plain(assignments: &Assignments) -> Vec<(&str, Vec<i32>)> {
        assignments
            .iter()
            .map(|(id, list)| (&**id, list.iter().map(|p| p.0).collect()))
            .collect()
    }

    #[test]
    fn range_gives_contiguous_parts_in_order_of_ids() {
        let members = [member("b", &[], -1), member("a", &[], -1)];
        let assigned = assign(RebalanceProtocol::Eager, &members, 5);
        assert_eq!(plain(&assigned), [("a", vec![0, 1, 2]), ("b", vec![3, 4])]);
    }

    #[test]
    fn a_moving_partition_is_first_taken_away_and_only_then_given() {
        let members = [member("a", &[0, 1, 2, 3], 4), member("b", &[], -1)];
        let first = assign(RebalanceProtocol::Cooperative, &members, 4);
        assert_eq!(plain(&first), [("a", vec![0, 1]), ("b", vec![])]);
        let members = [member("a", &[0, 1], 5), member("b", &[], 5)];
        let second = assign(RebalanceProtocol::Cooperative, &members, 4);
        assert_eq!(plain(&second), [("a", vec![0, 1]), ("b", vec![2, 3])]);
    }

    #[test]
    fn nothing_moves_when_the_group_is_balanced() {
        let members = [
            member("a", &[1, 4], 2),
            member("b", &[0, 3], 2),
            member("c", &[2], 2),
        ];
        let assigned = assign(RebalanceProtocol::Cooperative, &members, 5);
        assert_eq!(
            plain(&assigned),
            [("a", vec![1, 4]), ("b", vec![0, 3]), ("c", vec![2])]
        );
    }

    #[test]
    fn what_a_departed_member_owned_is_spread_over_the_others() {
        let members = [member("a", &[0, 1], 3), member("b", &[2, 3], 3)];
        let assigned = assign(RebalanceProtocol::Cooperative, &members, 6);
        assert_eq!(
            plain(&assigned),
            [("a", vec![0, 1, 4]), ("b", vec![2, 3, 5])]
        );
    }

    #[test]
    fn the_newer_generations_claim_wins_and_no_partition_has_two_owners() {
        let members = [member("a", &[0, 1], 3), member("b", &[1], 5)];
        let assigned = assign(RebalanceProtocol::Cooperative, &members, 2);
        assert_eq!(plain(&assigned), [("a", vec![0]), ("b", vec![1])]);
    }

    #[test]
    fn every_balanced_share_differs_by_at_most_one() {
        for partitions in 0..20 {
            let members = [
                member("a", &[], -1),
                member("b", &[], -1),
                member("c", &[], -1),
            ];
            let assigned = assign(RebalanceProtocol::Cooperative, &members, partitions);
            let sizes: Vec<usize> = assigned.iter().map(|(_, list)| list.len()).collect();
            let least = *sizes.iter().min().expect("three members");
            let most = *sizes.iter().max().expect("three members");
            assert!(most - least <= 1, "{sizes:?}");
            assert_eq!(sizes.iter().sum::<usize>(), partitions as usize);
        }
    }
}
