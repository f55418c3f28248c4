//! Generates strings that match a pattern, with the ends of its ranges more often than chance would.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Longest generated repetition where the pattern sets no limit.
const MAX_REPETITION: u32 = 8;

/// Generates strings that match an anchored pattern.
pub(crate) fn matching(pattern: &str) -> BoxedStrategy<String> {
    if pattern != "^/" {
        assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{pattern} is not anchored");
    }
    node(&regex_syntax::parse(pattern).unwrap())
}

fn node(hir: &Hir) -> BoxedStrategy<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start | Look::End) => Just(String::new()).boxed(),
        HirKind::Look(look) => panic!("the generator does not know {look:?}"),
        HirKind::Literal(literal) => Just(String::from_utf8(literal.0.to_vec()).unwrap()).boxed(),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges: Vec<_> = class.iter().map(|range| range.start()..=range.end()).collect();
            let ends: Vec<_> = ranges.iter().flat_map(|range| [*range.start(), *range.end()]).collect();
            let any = proptest::char::ranges(ranges.into());
            prop_oneof![prop::sample::select(ends), any].prop_map(String::from).boxed()
        }
        HirKind::Class(Class::Bytes(class)) => panic!("the generator does not know {class:?}"),
        HirKind::Repetition(repetition) => {
            let min = usize::try_from(repetition.min).unwrap();
            let max = usize::try_from(repetition.max.unwrap_or(repetition.min + MAX_REPETITION)).unwrap();
            let item = node(&repetition.sub);
            prop_oneof![vec(item.clone(), min), vec(item.clone(), max), vec(item, min..=max)]
                .prop_map(|parts| parts.concat())
                .boxed()
        }
        HirKind::Capture(group) => node(&group.sub),
        HirKind::Concat(parts) => {
            parts.iter().map(node).collect::<Vec<_>>().prop_map(|parts: Vec<String>| parts.concat()).boxed()
        }
        HirKind::Alternation(options) => Union::new(options.iter().map(node)).boxed(),
    }
}
