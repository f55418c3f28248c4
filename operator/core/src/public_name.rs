//! The public name of a tenant's gateway: what its spec wants, and what its status records. Pure.
//!
//! The order is: the policy accepts tokens for a name, every gateway serves it, `status.publicName` has it, and only then
//! credentials are issued for it. A name that is given up stays in `status.formerUrls`, and in the policy, until no token
//! that was issued for it can be valid.

use std::collections::BTreeSet;

use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::tenant::{FormerUrl, MAX_FORMER_URLS};

/// The public names of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The name in its spec.
    pub wanted: Option<&'a str>,
    /// The name in use.
    pub in_use: Option<&'a str>,
    /// Names that were in use before.
    pub former: &'a [FormerUrl],
}

/// Returns the origin of a host name, which is `aud` of tokens that are issued for it.
pub fn origin(hostname: &str) -> String {
    format!("https://{hostname}")
}

impl<'a> Names<'a> {
    /// Reads the names of a tenant.
    pub fn of(tenant: &'a MCPTenant) -> Self {
        let status = tenant.status.as_ref();
        Self {
            wanted: tenant.spec.endpoint.hostname.as_deref(),
            in_use: status.and_then(|status| status.public_name.as_deref()),
            former: status.map(|status| &*status.former_urls).unwrap_or_default(),
        }
    }

    /// Whether tokens for a name may be valid.
    pub fn holds(&self, hostname: &str) -> bool {
        self.in_use == Some(hostname) || self.is_former(hostname)
    }

    fn is_former(&self, hostname: &str) -> bool {
        self.former.iter().any(|former| former.url.strip_prefix("https://") == Some(hostname))
    }

    /// Whether the name in use could be given up for another one, or for none: there is room for it among the former ones,
    /// none of which may be forgotten before its time.
    pub fn has_room(&self, next: Option<&str>) -> bool {
        let returns = next.is_some_and(|next| self.is_former(next));
        self.in_use.is_none() || self.former.len() - usize::from(returns) < MAX_FORMER_URLS
    }

    /// Returns the origins that the policy accepts as `aud` besides the one in the cluster. `is_free` says whether the
    /// wanted name may be added: it is no other tenant's, and every gateway understands it.
    pub fn accepted(&self, is_free: bool) -> Vec<String> {
        let wanted = self.wanted.filter(|wanted| self.holds(wanted) || is_free && self.has_room(Some(wanted)));
        let former = self.former.iter().map(|former| former.url.clone());
        let all: BTreeSet<String> = wanted.into_iter().chain(self.in_use).map(origin).chain(former).collect();
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use mcp_fleet_policy::model::MAX_OTHER_AUDIENCES;

    use super::*;

    fn former(count: usize) -> Vec<FormerUrl> {
        let url = |number| FormerUrl {
            url: origin(&format!("{number}.example.com")),
            accepted_until: Time("2026-11-22T12:00:00Z".parse().unwrap()),
        };
        (0..count).map(url).collect()
    }

    #[test]
    fn a_policy_accepts_what_is_wanted_in_use_and_former_once_each() {
        let former = former(2);
        let names = Names { wanted: Some("1.example.com"), in_use: Some("mcp.example.com"), former: &former };
        let expected = ["https://0.example.com", "https://1.example.com", "https://mcp.example.com"];
        assert_eq!(
            (names.accepted(true), names.accepted(false)),
            (expected.map(str::to_owned).into(), expected.map(str::to_owned).into())
        );
        let none = Names { wanted: None, in_use: None, former: &[] };
        assert!(none.accepted(true).is_empty());
        let new = Names { wanted: Some("new.example.com"), ..none };
        assert_eq!((new.accepted(true).len(), new.accepted(false).len()), (1, 0), "another tenant's");
    }

    #[test]
    fn a_policy_never_accepts_more_names_than_gateways_do() {
        for count in 0..=MAX_FORMER_URLS {
            let former = former(count);
            for wanted in [None, Some("new.example.com"), Some("0.example.com"), Some("mcp.example.com")] {
                for in_use in [None, Some("mcp.example.com")] {
                    let names = Names { wanted, in_use, former: &former };
                    assert!(names.accepted(true).len() <= MAX_OTHER_AUDIENCES, "{names:?}");
                }
            }
        }
        let full = former(MAX_FORMER_URLS);
        let names = Names { wanted: Some("new.example.com"), in_use: Some("mcp.example.com"), former: &full };
        assert!(!names.has_room(names.wanted) && !names.has_room(None) && names.has_room(Some("0.example.com")));
        assert!(!names.accepted(true).contains(&origin("new.example.com")));
        assert!(Names { in_use: None, ..names }.has_room(names.wanted));
    }
}
