package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// table is the nftables table that this program manages.
const table = "inet mcp-fleet-netpol"

// compile returns an nftables script that replaces the table with one that enforces the
// policies of the state. The same state always gives the same script.
//
// The forward chain filters packets after Service addresses have been translated to pod
// addresses. The input chain filters packets from pods to the node. Packets from the node are
// never filtered, so probes of kubelet always reach its pods.
func compile(state state) string {
	var sets, chains strings.Builder
	writeSet(&sets, "pods", "ipv4_addr", texts(addressesOf(state.pods)))
	// A pod can always reach itself, also through a Service.
	var self []string
	for _, address := range addressesOf(state.pods) {
		self = append(self, fmt.Sprintf("%s . %s", address, address))
	}
	writeSet(&sets, "self", "ipv4_addr . ipv4_addr", self)
	for _, direction := range []direction{egress, ingress} {
		var verdicts []string
		for number, group := range groups(state, direction) {
			chain := fmt.Sprintf("%s_%d", direction, number)
			writeChain(&chains, chain, groupRules(state, direction, group))
			for _, address := range addressesOf(group.pods) {
				verdicts = append(verdicts, fmt.Sprintf("%s : jump %s", address, chain))
			}
		}
		writeMap(&sets, direction.String(), "ipv4_addr : verdict", verdicts)
	}
	return fmt.Sprintf(`table %[1]s {}
delete table %[1]s
table %[1]s {
%[3]s%[2]s	chain forward {
		type filter hook forward priority filter; policy accept;
		meta nfproto ipv6 drop
		ct state established,related accept
		ip saddr . ip daddr @self accept
		ip saddr %[4]s ip saddr != @pods drop
		ip daddr %[4]s ip daddr != @pods drop
		ip saddr vmap @egress
		ip daddr vmap @ingress
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname "lo" accept
		meta nfproto ipv6 drop
		ct state established,related accept
		ip saddr %[4]s ip saddr != @pods drop
		ip saddr vmap @egress
	}
}
`, table, sets.String(), chains.String(), state.podCIDR)
}

// direction is the direction of traffic, as seen from the isolated pod.
type direction int

const (
	ingress direction = iota
	egress
)

func (d direction) String() string {
	if d == ingress {
		return "ingress"
	}
	return "egress"
}

// peerField returns the packet field with the address of the peer.
func (d direction) peerField() string {
	if d == ingress {
		return "ip saddr"
	}
	return "ip daddr"
}

// group is a set of pods that the same policies isolate in one direction.
type group struct {
	policies []*networkingv1.NetworkPolicy
	pods     []pod
}

// groups returns the groups of all pods that a policy isolates in this direction, sorted by
// namespace and policy names.
func groups(state state, direction direction) []group {
	found := map[string]*group{}
	for _, pod := range state.pods {
		var key strings.Builder
		var selecting []*networkingv1.NetworkPolicy
		for _, policy := range state.policies {
			if isolates(policy, direction) && policy.Namespace == pod.namespace && matches(&policy.Spec.PodSelector, pod.labels) {
				selecting = append(selecting, policy)
			}
		}
		if len(selecting) == 0 {
			continue
		}
		slices.SortFunc(selecting, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
		key.WriteString(pod.namespace)
		for _, policy := range selecting {
			key.WriteString("/" + policy.Name)
		}
		if found[key.String()] == nil {
			found[key.String()] = &group{policies: selecting}
		}
		found[key.String()].pods = append(found[key.String()].pods, pod)
	}
	var sorted []group
	for _, key := range sortedKeys(found) {
		sorted = append(sorted, *found[key])
	}
	return sorted
}

// isolates returns whether a policy applies to this direction. The API server sets policyTypes;
// if they are missing, the default of the NetworkPolicy specification applies.
func isolates(policy *networkingv1.NetworkPolicy, direction direction) bool {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		return direction == ingress || len(policy.Spec.Egress) > 0
	}
	if direction == ingress {
		return slices.Contains(types, networkingv1.PolicyTypeIngress)
	}
	return slices.Contains(types, networkingv1.PolicyTypeEgress)
}

// groupRules returns the rules of a group's chain. A packet that any policy allows returns from
// the chain, and is then checked in the other direction. All other packets are dropped.
func groupRules(state state, direction direction, group group) []string {
	// A named port refers to the containers of the receiving pods.
	receivers := state.pods
	if direction == ingress {
		receivers = group.pods
	}
	var rules []string
	allow := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, namespace string) {
		for _, peer := range peerMatches(state, direction, namespace, peers) {
			for _, port := range portMatches(ports, receivers) {
				rules = append(rules, strings.TrimSpace(strings.Join([]string{peer, port}, " "))+" return")
			}
		}
	}
	for _, policy := range group.policies {
		if direction == ingress {
			for _, rule := range policy.Spec.Ingress {
				allow(rule.From, rule.Ports, policy.Namespace)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				allow(rule.To, rule.Ports, policy.Namespace)
			}
		}
	}
	for i := range rules {
		rules[i] = strings.Join(strings.Fields(rules[i]), " ")
	}
	return append(rules, "counter drop")
}

func addressesOf(pods []pod) []netip.Addr {
	var addresses []netip.Addr
	for _, pod := range pods {
		addresses = append(addresses, pod.addresses...)
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}
