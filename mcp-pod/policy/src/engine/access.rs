//! A tool that a principal may call, and the check of one call's arguments.

use super::{Policy, ServerEntry, ToolEntry};
use crate::class::Class;
use crate::denial::Denial;
use crate::json::{Members, Value};
use crate::model;
use crate::reason::Reason;
use crate::rules::PathArgument;
use crate::units::Micros;

/// A tool that a principal may call, within the limits of its grants.
#[derive(Clone, Copy, Debug)]
pub struct ToolAccess<'p> {
    pub(super) compiled: &'p Policy,
    pub(super) server: &'p model::Server,
    pub(super) tool: &'p model::Tool,
    pub(super) server_entry: &'p ServerEntry,
    pub(super) tool_entry: &'p ToolEntry,
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
        let [read, write, destructive] = &self.server_entry.budgets;
        let budgets = match self.tool.class {
            Class::Read => read,
            Class::Write => write,
            Class::Destructive => destructive,
        };
        budgets.iter().filter_map(|index| self.compiled.model.budgets.get(*index))
    }

    /// Returns the JSON Schema of the arguments that the grants admit; equal grants give equal bytes.
    pub fn input_schema(self) -> &'p [u8] {
        &self.tool_entry.schema
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
        for grant in &self.tool_entry.grants {
            if grant.arguments.admit(members, &mut paths).is_ok() {
                return Ok(AdmittedCall { scope: &grant.scope, paths });
            }
            paths.clear();
        }
        Err(self.explain(members))
    }

    /// Returns the denial by the closest grant: the one with the fewest arguments wrong.
    fn explain(self, members: &Members<'_>) -> Denial {
        let closest = self.tool_entry.grants.iter().min_by_key(|grant| grant.arguments.distance(members));
        let violation = closest.and_then(|closest| closest.arguments.admit(members, &mut Vec::new()).err());
        violation.map_or(Denial::new(Reason::ToolNotGranted), |violation| violation.into_denial())
    }
}
