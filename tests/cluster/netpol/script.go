package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// writeSet writes a named set. An empty set has no elements line, because nftables would reject
// that.
func writeSet(out *strings.Builder, name, kind string, elements []string) {
	writeNamed(out, "set", name, kind, elements)
}

// writeMap writes a named map.
func writeMap(out *strings.Builder, name, kind string, elements []string) {
	writeNamed(out, "map", name, kind, elements)
}

func writeNamed(out *strings.Builder, what, name, kind string, elements []string) {
	fmt.Fprintf(out, "\t%s %s {\n\t\ttype %s\n", what, name, kind)
	if len(elements) > 0 {
		fmt.Fprintf(out, "\t\telements = { %s }\n", strings.Join(elements, ", "))
	}
	out.WriteString("\t}\n")
}

// writeChain writes a chain that other chains jump to.
func writeChain(out *strings.Builder, name string, rules []string) {
	fmt.Fprintf(out, "\tchain %s {\n", name)
	for _, rule := range rules {
		fmt.Fprintf(out, "\t\t%s\n", rule)
	}
	out.WriteString("\t}\n")
}

func texts[T fmt.Stringer](values []T) []string {
	var result []string
	for _, value := range values {
		result = append(result, value.String())
	}
	return result
}

func sortedKeys[K cmp.Ordered, V any](values map[K]V) []K {
	return slices.Sorted(maps.Keys(values))
}
