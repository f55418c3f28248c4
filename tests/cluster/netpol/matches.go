package main

import (
	"fmt"
	"log"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// peerMatches returns nftables matches of which a packet from or to the peers passes at least
// one. Without peers it returns a single empty match, which every packet passes. If no pod and
// no block match, it returns none.
func peerMatches(state state, direction direction, namespace string, peers []networkingv1.NetworkPolicyPeer) []string {
	if len(peers) == 0 {
		return []string{""}
	}
	var result []string
	var selected []pod
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if match := blockMatch(direction, peer.IPBlock); match != "" {
				result = append(result, match)
			}
			continue
		}
		for _, pod := range state.pods {
			if isPeer(state, namespace, peer, pod) {
				selected = append(selected, pod)
			}
		}
	}
	if addresses := addressesOf(selected); len(addresses) > 0 {
		result = append(result, fmt.Sprintf("%s { %s }", direction.peerField(), strings.Join(texts(addresses), ", ")))
	}
	return result
}

// isPeer returns whether a peer with selectors selects a pod. Without a namespaceSelector, it
// selects only from the namespace of the policy. Without a podSelector, it selects all pods.
func isPeer(state state, namespace string, peer networkingv1.NetworkPolicyPeer, pod pod) bool {
	if peer.NamespaceSelector == nil {
		if pod.namespace != namespace {
			return false
		}
	} else if namespaceLabels, found := state.namespaces[pod.namespace]; !found || !matches(peer.NamespaceSelector, namespaceLabels) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, pod.labels)
}

// blockMatch returns the match for an ipBlock. It is empty for an IPv6 block, because no pod
// here has an IPv6 address.
func blockMatch(direction direction, block *networkingv1.IPBlock) string {
	cidr, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !cidr.Addr().Is4() {
		return ""
	}
	field := direction.peerField()
	match := fmt.Sprintf("%s %s", field, cidr.Masked())
	for _, except := range block.Except {
		// The API server has checked that each exception is inside the block.
		if inner, err := netip.ParsePrefix(except); err == nil {
			match += fmt.Sprintf(" %s != %s", field, inner.Masked())
		}
	}
	return match
}

// portMatches returns nftables matches of which a packet to the ports passes at least one.
// Without ports it returns a single empty match. If there are only named ports, and no receiver
// has a port of that name, it returns none.
func portMatches(ports []networkingv1.NetworkPolicyPort, receivers []pod) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	numbers := map[corev1.Protocol][]string{}
	named := map[corev1.Protocol][]string{}
	var result []string
	for _, port := range ports {
		protocol := protocol(port.Protocol)
		switch {
		case port.Port == nil:
			result = append(result, "meta l4proto "+strings.ToLower(string(protocol)))
		case port.Port.Type == intstr.String:
			for _, pod := range receivers {
				number, found := pod.ports[portName{protocol, port.Port.StrVal}]
				for _, address := range pod.addresses {
					if found {
						named[protocol] = append(named[protocol], fmt.Sprintf("%s . %d", address, number))
					}
				}
			}
		case port.EndPort != nil && *port.EndPort > port.Port.IntVal:
			numbers[protocol] = append(numbers[protocol], fmt.Sprintf("%d-%d", port.Port.IntVal, *port.EndPort))
		default:
			numbers[protocol] = append(numbers[protocol], fmt.Sprint(port.Port.IntVal))
		}
	}
	for _, protocol := range sortedKeys(numbers) {
		// One match per range, because nftables rejects overlapping ranges in one set.
		for _, number := range sortedUnique(numbers[protocol]) {
			result = append(result, fmt.Sprintf("%s dport %s", strings.ToLower(string(protocol)), number))
		}
	}
	for _, protocol := range sortedKeys(named) {
		pairs := strings.Join(sortedUnique(named[protocol]), ", ")
		result = append(result, fmt.Sprintf("ip daddr . %s dport { %s }", strings.ToLower(string(protocol)), pairs))
	}
	return sortedUnique(result)
}

// matches returns whether a selector selects an object with these labels. An invalid selector,
// which the API server should have rejected, selects nothing.
func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		log.Printf("ignoring invalid selector %v: %v", selector, err)
		return false
	}
	return parsed.Matches(set)
}

func sortedUnique(values []string) []string {
	sorted := slices.Sorted(slices.Values(values))
	return slices.Compact(sorted)
}
