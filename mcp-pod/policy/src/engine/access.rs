//! A tool that a principal may call, and the check of one call's arguments.

use std::sync::Arc;

use super::{Policy, ServerEntry};
use crate::class::Class;
use crate::denial::Denial;
use crate::json::{Members, Value};
use crate::model;
use crate::reason::Reason;
use crate::rules::{Arguments, PathArgument};
use crate::schema::{self, Annotations};
use crate::units::Micros;

/// A tool that a principal may call, within the limits of its grants.
#[derive(Clone, Copy, Debug)]
pub struct ToolAccess<'p> {
    pub(super) compiled: &'p Policy,
    pub(super) server: &'p model::Server,
    pub(super) tool: &'p model::Tool,
    /// Index into the server's tools.
    pub(super) index: usize,
    /// Arguments of the tool in the catalogue.
    pub(super) declared: &'p Arc<Arguments>,
    pub(super) server_entry: &'p ServerEntry,
}

/// A call whose arguments one grant and the catalogue admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedCall<'p, 'v> {
    /// Scope of the grant that admits the call: the first one, if several do.
    pub scope: &'p str,
    /// Every path in the arguments, for the shim to resolve.
    pub paths: Vec<PathArgument<'p, 'v>>,
}

impl<'p> ToolAccess<'p> {
    /// Returns the index of the tool's server in this generation of the policy.
    pub const fn server_index(self) -> usize {
        self.server_entry.server
    }

    /// Returns the tool as the catalogue declares it.
    pub const fn tool(self) -> &'p model::Tool {
        self.tool
    }

    /// Returns the server of the tool.
    pub const fn server(self) -> &'p model::Server {
        self.server
    }

    /// Returns the class of the tool.
    pub const fn class(self) -> Class {
        self.tool.class
    }

    /// Returns the price of one call.
    pub const fn price(self) -> Micros {
        self.tool.price
    }

    /// Returns the budgets that cover a call of this tool by this principal, including the tenant's spend limit.
    pub fn budgets(self) -> impl Iterator<Item = &'p model::Budget> + Clone {
        let [read, write, destructive] = &*self.server_entry.budgets;
        let budgets = match self.tool.class {
            Class::Read => read,
            Class::Write => write,
            Class::Destructive => destructive,
        };
        budgets.iter().filter_map(|index| self.compiled.model.budgets.get(*index))
    }

    /// Returns the JSON Schema of the arguments that the grants admit, with what the server says about them. Equal grants
    /// give equal bytes. Computed again by each call.
    pub(crate) fn input_schema(self, server: Option<&Annotations>) -> Vec<u8> {
        let all: Vec<&Arc<Arguments>> = self.grants().map(|(_, arguments)| arguments).collect();
        // A grant of the whole tool admits everything that the other grants admit.
        if all.iter().any(|arguments| Arc::ptr_eq(arguments, self.declared)) {
            return schema::of(&[self.declared], server);
        }
        schema::of(&all, server)
    }

    /// Returns whether a grant admits a call of the tool.
    pub(super) fn is_granted(self) -> bool {
        self.grants().next().is_some()
    }

    /// Returns the arguments that each grant of the tool admits, with the name of its scope, in the order in which the
    /// principal holds them.
    fn grants(self) -> impl Iterator<Item = (&'p str, &'p Arc<Arguments>)> {
        let Self { compiled, server_entry, index, tool, declared, .. } = self;
        let held = server_entry.grants.iter().filter_map(|grant| compiled.grants.get(usize::try_from(*grant).ok()?));
        held.flat_map(move |grant| {
            grant.arguments(index, tool.class, declared).map(move |arguments| (grant.scope(), arguments))
        })
    }

    /// Removes each `null` that stands for an optional argument: of the catalogue, or else, if no grant admits the call as it
    /// is, of the first grant that admits what then remains.
    pub fn leave_out_nulls(self, arguments: &mut Value<'_>) {
        if let Value::Object(members) = arguments {
            self.declared.leave_out_nulls(members);
        }
        if !arguments.has_null() || self.admit(Some(arguments)).is_ok() {
            return;
        }
        let Value::Object(members) = arguments else { return };
        for (_, granted) in self.grants() {
            let mut without = members.clone();
            granted.leave_out_nulls(&mut without);
            if granted.admit(&without, &mut Vec::new()).is_ok() {
                *members = without;
                return;
            }
        }
    }

    /// Returns whether a grant admits an argument with this name.
    pub fn declares(self, argument: &str) -> bool {
        self.grants().any(|(_, arguments)| arguments.get(argument).is_some())
    }

    /// Checks the arguments of a call; `None` counts as an empty object.
    pub fn admit<'v>(self, arguments: Option<&'v Value<'_>>) -> Result<AdmittedCall<'p, 'v>, Denial> {
        const EMPTY: &Members<'static> = &Vec::new();
        let members = match arguments {
            None => EMPTY,
            Some(Value::Object(members)) => members,
            Some(_) => return Err(Denial::new(Reason::ArgumentType).with_limit("arguments must be an object")),
        };
        let mut paths = Vec::new();
        for (scope, arguments) in self.grants() {
            if arguments.admit(members, &mut paths).is_ok() {
                return Ok(AdmittedCall { scope, paths });
            }
            paths.clear();
        }
        Err(self.explain(members))
    }

    /// Returns the denial by the closest grant: the one with the fewest arguments wrong.
    fn explain(self, members: &Members<'_>) -> Denial {
        let closest = self.grants().map(|(_, arguments)| arguments).min_by_key(|arguments| arguments.distance(members));
        let violation = closest.and_then(|closest| closest.admit(members, &mut Vec::new()).err());
        violation.map_or(Denial::new(Reason::ToolNotGranted), |violation| violation.into_denial())
    }
}
