//! A tool that a principal may call, and the check of a call.

use super::{Compiled, Granted, Held};
use crate::class::Class;
use crate::denial::Denial;
use crate::json::{Members, Value};
use crate::model;
use crate::reason::Reason;
use crate::rules::PathUse;
use crate::units::Micros;

/// A tool that a principal may call, within what its grants admit.
#[derive(Clone, Copy, Debug)]
pub struct ToolAccess<'p> {
    pub(super) compiled: &'p Compiled,
    pub(super) server: &'p model::Server,
    pub(super) tool: &'p model::Tool,
    pub(super) held: &'p Held,
    pub(super) granted: &'p Granted,
}

/// A call that one grant and the catalogue admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<'p, 'v> {
    /// The scope whose grant admits it: the first, if several do.
    pub scope: &'p str,
    /// Every path among the arguments, for the shim to resolve.
    pub paths: Vec<PathUse<'p, 'v>>,
}

impl<'p> ToolAccess<'p> {
    /// The tool as the catalogue has it.
    pub const fn tool(self) -> &'p model::Tool {
        self.tool
    }

    /// Its server.
    pub const fn server(self) -> &'p model::Server {
        self.server
    }

    /// What it does to the world.
    pub const fn class(self) -> Class {
        self.tool.class
    }

    /// What a call costs.
    pub const fn price(self) -> Micros {
        self.tool.price
    }

    /// The budgets that cover a call of it by this principal, the tenant's ceiling among them.
    pub fn budgets(self) -> impl Iterator<Item = &'p model::Budget> + Clone {
        let [read, write, destructive] = &self.held.budgets;
        let budgets = match self.tool.class {
            Class::Read => read,
            Class::Write => write,
            Class::Destructive => destructive,
        };
        budgets.iter().filter_map(|index| self.compiled.policy.budgets.get(*index))
    }

    /// The JSON Schema of the arguments that are admitted, in the same bytes for equal grants.
    pub fn input_schema(self) -> &'p [u8] {
        &self.granted.schema
    }

    /// Checks the arguments of a call; absent ones are an empty object.
    pub fn admit<'v>(self, arguments: Option<&'v Value<'_>>) -> Result<Admitted<'p, 'v>, Denial> {
        const NONE: &Members<'static> = &Vec::new();
        let members = match arguments {
            None => NONE,
            Some(Value::Object(members)) => members,
            Some(_) => return Err(Denial::new(Reason::ArgumentType).with_limit("arguments must be an object")),
        };
        let mut paths = Vec::new();
        for alternative in &self.granted.alternatives {
            if alternative.arguments.admit(members, &mut paths).is_ok() {
                return Ok(Admitted { scope: &alternative.scope, paths });
            }
            paths.clear();
        }
        Err(self.explain(members))
    }

    /// The refusal by the grant that the call comes closest to.
    fn explain(self, members: &Members<'_>) -> Denial {
        let alternatives = &self.granted.alternatives;
        let closest = alternatives.iter().min_by_key(|alternative| alternative.arguments.distance(members));
        let violation = closest.and_then(|closest| closest.arguments.admit(members, &mut Vec::new()).err());
        violation.map_or(Denial::new(Reason::ToolNotGranted), |violation| violation.into_denial())
    }
}
