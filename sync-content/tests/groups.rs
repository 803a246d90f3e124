//! Sets of groups against the plainest model: a set of numbers.

use std::{collections::BTreeSet, ops::Range};

use proptest::prelude::*;
use sync_content::{
    GROUP_LEN, GroupRanges,
    groups::{byte_range, covering, group_count},
};

fn runs() -> impl Strategy<Value = Vec<(bool, Range<u64>)>> {
    prop::collection::vec((any::<bool>(), 0..60_u64, 0..12_u64), 0..30)
        .prop_map(|runs| runs.into_iter().map(|(add, start, len)| (add, start..start + len)).collect())
}

fn build(changes: &[(bool, Range<u64>)]) -> (GroupRanges, BTreeSet<u64>) {
    let mut set = GroupRanges::empty();
    let mut model = BTreeSet::new();
    for (add, run) in changes {
        if *add {
            set.insert(run.clone());
            model.extend(run.clone());
        } else {
            set.remove(run.clone());
            model.retain(|group| !run.contains(group));
        }
    }
    (set, model)
}

fn numbers(set: &GroupRanges) -> BTreeSet<u64> {
    set.iter().flatten().collect()
}

proptest! {
    #[test]
    fn a_set_of_runs_is_a_set_of_numbers(one in runs(), other in runs(), asked in (0..70_u64, 0..20_u64)) {
        let (a, model_a) = build(&one);
        let (b, model_b) = build(&other);
        prop_assert_eq!(numbers(&a), model_a.clone());
        prop_assert_eq!(a.count(), model_a.len() as u64);
        prop_assert_eq!(numbers(&a.union(&b)), &model_a | &model_b);
        prop_assert_eq!(numbers(&a.difference(&b)), &model_a - &model_b);
        prop_assert_eq!(numbers(&a.intersection(&b)), &model_a & &model_b);
        let asked = asked.0..asked.0 + asked.1;
        prop_assert_eq!(a.contains(&asked), asked.clone().all(|group| model_a.contains(&group)));
        // One set has one form, and the form survives its encoding.
        let pairs: Vec<(u64, u64)> = a.clone().into();
        prop_assert!(pairs.windows(2).all(|pair| pair[0].1 < pair[1].0));
        prop_assert_eq!(GroupRanges::try_from(pairs).unwrap(), a);
    }

    #[test]
    fn bytes_and_groups_map_onto_each_other(len in 0..20 * GROUP_LEN, from in 0.0..1.0, to in 0.0..1.0) {
        let (from, to) = ((from * len as f64) as u64, (to * len as f64) as u64);
        let range = from.min(to)..from.max(to);
        let groups = covering(range.clone());
        prop_assert!(groups.end <= group_count(len));
        let bytes = byte_range(&groups, len);
        if !range.is_empty() {
            prop_assert!(bytes.start <= range.start && range.end <= bytes.end);
            prop_assert!(range.start - bytes.start < GROUP_LEN && bytes.end - range.end < GROUP_LEN);
        }
    }
}

#[test]
fn malformed_runs_are_refused() {
    for runs in [vec![(1, 1)], vec![(2, 1)], vec![(0, 1), (1, 2)], vec![(0, 3), (2, 4)], vec![(5, 6), (0, 1)]] {
        assert!(GroupRanges::try_from(runs).is_err());
    }
}
