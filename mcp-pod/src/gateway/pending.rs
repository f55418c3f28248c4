//! Stands in for `mcp_fleet_policy::{list, text}` until they are there.
pub(crate) mod list {
    use mcp_fleet_policy::engine::View;
    #[derive(Debug)]
    pub(crate) struct Observed;
    impl Observed {
        pub(crate) fn new<'a>(_tools: impl IntoIterator<Item = &'a str>) -> Self {
            Self
        }
    }
    pub(crate) fn render(_view: &View<'_>, _observed: &Observed, out: &mut Vec<u8>) {
        out.extend_from_slice(b"[]");
    }
}
pub(crate) mod text {
    pub(crate) fn neutralise(text: &str) -> std::borrow::Cow<'_, str> {
        text.into()
    }
}
