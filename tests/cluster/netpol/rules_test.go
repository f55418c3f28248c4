package main

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// testState returns a state with two namespaces, two pods in each, and the given policies.
func testState(policies ...*networkingv1.NetworkPolicy) state {
	http := map[portName]uint16{{corev1.ProtocolTCP, "http"}: 8080}
	admin := map[portName]uint16{{corev1.ProtocolTCP, "http"}: 9090, {corev1.ProtocolUDP, "dns"}: 53}
	running := func(namespace, app, address string, ports map[portName]uint16) pod {
		return pod{namespace, labels.Set{"app": app}, []netip.Addr{netip.MustParseAddr(address)}, ports}
	}
	return state{
		podCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		pods: []pod{
			running("a", "web", "10.244.0.1", http),
			running("a", "db", "10.244.0.2", nil),
			running("b", "web", "10.244.0.3", admin),
			running("b", "db", "10.244.0.4", nil),
		},
		namespaces: map[string]labels.Set{"a": {"team": "red"}, "b": {"team": "blue"}},
		policies:   policies,
	}
}

func policy(namespace, name string, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func app(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func team(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": name}}
}

func tcp(port intstr.IntOrString, end int32) networkingv1.NetworkPolicyPort {
	result := networkingv1.NetworkPolicyPort{Port: &port}
	if end != 0 {
		result.EndPort = &end
	}
	return result
}

// from returns a state with a policy that lets peers connect to ports of web in namespace a.
func from(peers []networkingv1.NetworkPolicyPeer, ports ...networkingv1.NetworkPolicyPort) state {
	rule := networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports}
	return testState(policy("a", "p", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"), Ingress: []networkingv1.NetworkPolicyIngressRule{rule},
	}))
}

// to returns a state with a policy that lets web in namespace a connect to ports of peers.
func to(peers []networkingv1.NetworkPolicyPeer, ports ...networkingv1.NetworkPolicyPort) state {
	rule := networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports}
	return testState(policy("a", "p", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{rule},
	}))
}

func TestRulesMatchThePolicy(t *testing.T) {
	none := []networkingv1.NetworkPolicyPeer(nil)
	peer := func(pods, namespaces *metav1.LabelSelector) []networkingv1.NetworkPolicyPeer {
		return []networkingv1.NetworkPolicyPeer{{PodSelector: pods, NamespaceSelector: namespaces}}
	}
	block := []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16", "10.2.0.0/16"}}}}
	udp := corev1.ProtocolUDP
	all := &metav1.LabelSelector{}
	for name, test := range map[string]struct {
		state     state
		direction direction
		want      []string
	}{
		"no peers and no ports allow everything":     {from(none), ingress, []string{"return"}},
		"a podSelector selects in its namespace":     {from(peer(app("db"), nil)), ingress, []string{"ip saddr { 10.244.0.2 } return"}},
		"a namespaceSelector selects all its pods":   {from(peer(nil, team("blue"))), ingress, []string{"ip saddr { 10.244.0.3, 10.244.0.4 } return"}},
		"both selectors must match":                  {from(peer(app("db"), team("blue"))), ingress, []string{"ip saddr { 10.244.0.4 } return"}},
		"empty selectors select every pod":           {from(peer(all, all)), ingress, []string{"ip saddr { 10.244.0.1, 10.244.0.2, 10.244.0.3, 10.244.0.4 } return"}},
		"a peer without pods allows nothing":         {from(peer(app("gone"), nil)), ingress, nil},
		"exceptions are excluded":                    {from(block), ingress, []string{"ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 return"}},
		"a port without a protocol is TCP":           {from(none, tcp(intstr.FromInt32(80), 0)), ingress, []string{"tcp dport 80 return"}},
		"an endPort makes a range":                   {from(none, tcp(intstr.FromInt32(80), 90)), ingress, []string{"tcp dport 80-90 return"}},
		"a protocol without a port allows all ports": {from(none, networkingv1.NetworkPolicyPort{Protocol: &udp}), ingress, []string{"meta l4proto udp return"}},
		"an ingress port name refers to the pod":     {from(none, tcp(intstr.FromString("http"), 0)), ingress, []string{"ip daddr . tcp dport { 10.244.0.1 . 8080 } return"}},
		"an unknown port name allows nothing":        {from(none, tcp(intstr.FromString("grpc"), 0)), ingress, nil},
		"a name of another protocol allows nothing":  {to(none, tcp(intstr.FromString("dns"), 0)), egress, nil},
		"an egress port name refers to the peers":    {to(none, tcp(intstr.FromString("http"), 0)), egress, []string{"ip daddr . tcp dport { 10.244.0.1 . 8080, 10.244.0.3 . 9090 } return"}},
		"egress matches the destination":             {to(peer(app("db"), team("blue")), tcp(intstr.FromInt32(5432), 0)), egress, []string{"ip daddr { 10.244.0.4 } tcp dport 5432 return"}},
		"an IPv6 block allows nothing":               {to([]networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/8"}}}), egress, nil},
		"a block and a selector are two peers":       {from(append(peer(app("db"), nil), block[0])), ingress, []string{"ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 return", "ip saddr { 10.244.0.2 } return"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := groups(test.state, test.direction)
			if len(found) != 1 {
				t.Fatalf("got %d groups of isolated pods, want 1", len(found))
			}
			got := groupRules(test.state, test.direction, found[0])
			if want := append(test.want, "counter drop"); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestPoliciesIsolateOnlyInTheirDirections(t *testing.T) {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	rules := []networkingv1.NetworkPolicyEgressRule{{}}
	for name, test := range map[string]struct {
		spec            networkingv1.NetworkPolicySpec
		ingress, egress bool
	}{
		"ingress is the default":               {networkingv1.NetworkPolicySpec{}, true, false},
		"egress rules imply egress":            {networkingv1.NetworkPolicySpec{Egress: rules}, true, true},
		"both are isolated if both are listed": {networkingv1.NetworkPolicySpec{PolicyTypes: both}, true, true},
		"egress alone leaves ingress open":     {networkingv1.NetworkPolicySpec{PolicyTypes: both[1:]}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			state := testState(policy("a", "p", test.spec))
			if got := len(groups(state, ingress)) == 1; got != test.ingress {
				t.Errorf("isolated for ingress: %v, want %v", got, test.ingress)
			}
			if got := len(groups(state, egress)) == 1; got != test.egress {
				t.Errorf("isolated for egress: %v, want %v", got, test.egress)
			}
		})
	}
}

func TestPoliciesAddUpAndAffectOnlyTheirPods(t *testing.T) {
	deny := policy("a", "deny", networkingv1.NetworkPolicySpec{})
	open := policy("a", "open", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"),
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{tcp(intstr.FromInt32(80), 0)}}},
	})
	state := testState(deny, open)
	found := groups(state, ingress)
	if len(found) != 2 {
		t.Fatalf("got %d groups, want two: isolated by deny alone, and by both policies", len(found))
	}
	if got, want := texts(addressesOf(found[0].pods)), []string{"10.244.0.2"}; !slices.Equal(got, want) {
		t.Errorf("deny alone isolates %v, want %v", got, want)
	}
	if got, want := groupRules(state, ingress, found[1]), []string{"tcp dport 80 return", "counter drop"}; !slices.Equal(got, want) {
		t.Errorf("both policies allow %q, want %q", got, want)
	}
	for _, group := range found {
		for _, pod := range group.pods {
			if pod.namespace == "b" {
				t.Error("a policy isolates a pod of another namespace")
			}
		}
	}
}

func TestTheSameStateGivesTheSameScript(t *testing.T) {
	state := from([]networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}})
	first := compile(state)
	for range 20 {
		if compile(state) != first {
			t.Fatal("compiling the same state twice gave different scripts")
		}
	}
}

func TestEndedAndHostNetworkPodsAreIgnored(t *testing.T) {
	ended := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	shared := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}
	for _, object := range []*corev1.Pod{ended, shared} {
		if _, networked := parsePod(object); networked {
			t.Errorf("%+v is treated as a pod with its own network", object)
		}
	}
	if _, networked := parsePod(&corev1.Pod{}); !networked {
		t.Error("a starting pod is not treated as a pod with its own network")
	}
}

// The nft program checks the syntax. It changes nothing here, but needs root anyway.
func TestNftAcceptsTheScript(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and nft (Debian package nftables)")
	}
	everything := from(
		[]networkingv1.NetworkPolicyPeer{{PodSelector: app("db")}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
		tcp(intstr.FromInt32(80), 0), tcp(intstr.FromInt32(80), 90), tcp(intstr.FromString("http"), 0), networkingv1.NetworkPolicyPort{},
	)
	everything.policies = append(everything.policies, to(nil, tcp(intstr.FromString("http"), 0)).policies...)
	for name, state := range map[string]state{"everything": everything, "no policies": testState(), "nothing": {podCIDR: netip.MustParsePrefix("10.244.0.0/16")}} {
		t.Run(name, func(t *testing.T) {
			nft := exec.Command("nft", "--check", "--file", "-")
			nft.Stdin = strings.NewReader(compile(state))
			if output, err := nft.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}
