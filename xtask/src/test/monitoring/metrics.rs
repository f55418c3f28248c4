//! The metrics: as the components export them, and as `docs/metrics.md` describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools::repository;

/// The snapshots of what each component exports, by its section of `docs/metrics.md`.
const COMPONENTS: [(&str, &str); 3] = [("Gateways", "gateway"), ("Tool pods", "server"), ("Operator", "operator")];

/// Type and labels of each metric.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// Returns the metrics of a component in the text format of Prometheus.
fn exported(snapshot: &str) -> Result<String> {
    let path = repository().join(format!("tests/monitoring/metrics/{snapshot}.snap"));
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(text.splitn(3, "---\n").nth(2).context("the snapshot has no content")?.to_owned())
}

/// Checks that the documentation has exactly the metrics that each component exports, with their types and labels.
pub fn check_documentation() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/metrics.md")).context("failed to read docs/metrics.md")?;
    for (section, snapshot) in COMPONENTS {
        let text = page.split("\n## ").find(|text| text.starts_with(section));
        let documented = documented(text.with_context(|| format!("docs/metrics.md has no section {section}"))?);
        let exported = families(&exported(snapshot)?);
        for (name, found) in &exported {
            match documented.get(name) {
                None => bail!("{section} of docs/metrics.md lacks {name}"),
                Some(described) => {
                    ensure!(
                        described == found,
                        "docs/metrics.md describes {name} as {described:?}, but it is {found:?}"
                    );
                }
            }
        }
        if let Some(name) = documented.keys().find(|name| !exported.contains_key(*name)) {
            bail!("{section} of docs/metrics.md describes {name}, which {snapshot}.snap does not have");
        }
    }
    Ok(())
}

/// Checks that Prometheus scrapes in the tests exactly the metrics that each component exports, with their types and labels.
pub fn check_fixtures() -> Result<()> {
    for (_, component) in COMPONENTS {
        let path = format!("tests/monitoring/{component}.prom");
        let text = fs::read_to_string(repository().join(&path)).with_context(|| format!("failed to read {path}"))?;
        let (exported, scraped) = (families(&exported(component)?), families(&text));
        for (name, scraped) in &scraped {
            let found =
                exported.get(name).with_context(|| format!("{path} has {name}, which no {component} exports"))?;
            ensure!(found == scraped, "{path} has {name} as {scraped:?}, but it is {found:?}");
        }
        if let Some(name) = exported.keys().find(|name| !scraped.contains_key(*name)) {
            bail!("{path} lacks {name}, which a {component} exports");
        }
    }
    Ok(())
}

/// Returns the names of the metrics that some component exports.
pub fn exported_by_any() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (_, component) in COMPONENTS {
        names.extend(families(&exported(component)?).into_keys());
    }
    Ok(names)
}

/// Returns the names of the series that a component exports.
pub fn series(component: &str) -> Result<BTreeSet<String>> {
    let text = exported(component)?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.filter_map(|line| line.split(['{', ' ']).next()).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Reads the table of a section.
fn documented(section: &str) -> Families {
    let mut families = Families::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [names, kind, labels, ..] = cells.as_slice() else { continue };
        let labels: BTreeSet<String> =
            labels.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect();
        for name in names.split(',') {
            families.insert(name.trim().trim_matches('`').to_owned(), ((*kind).to_owned(), labels.clone()));
        }
    }
    families
}

/// Reads the text format.
fn families(text: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let (false, Some((_, rest))) = (line.starts_with('#'), line.split_once('{')) {
            let labels = rest.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            if let Some((_, known)) = families.get_mut(&current) {
                known.extend(labels.filter(|label| label != "le"));
            }
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_labels_of_their_samples() {
        let text = "# HELP a_total Help\n# TYPE a_total counter\na_total{b=\"1\",c=\"x,y\"} 1\n# TYPE d gauge\nd 1\n";
        let labels = BTreeSet::from(["b".to_owned(), "c".to_owned()]);
        let wanted = [("a_total", ("counter", labels)), ("d", ("gauge", BTreeSet::new()))];
        assert_eq!(
            families(text),
            wanted.map(|(name, (kind, labels))| (name.to_owned(), (kind.to_owned(), labels))).into()
        );
    }
}
