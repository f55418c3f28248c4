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

// world has two namespaces with two pods each.
func world(policies ...*networkingv1.NetworkPolicy) state {
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

// from is a policy that lets the peers in to the ports of web in namespace a.
func from(peers []networkingv1.NetworkPolicyPeer, ports ...networkingv1.NetworkPolicyPort) state {
	rule := networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports}
	return world(policy("a", "p", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"), Ingress: []networkingv1.NetworkPolicyIngressRule{rule},
	}))
}

// to is a policy that lets web in namespace a reach the peers' ports.
func to(peers []networkingv1.NetworkPolicyPeer, ports ...networkingv1.NetworkPolicyPort) state {
	rule := networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports}
	return world(policy("a", "p", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{rule},
	}))
}

func TestRulesSayWhatThePolicySays(t *testing.T) {
	none := []networkingv1.NetworkPolicyPeer(nil)
	peer := func(pods, namespaces *metav1.LabelSelector) []networkingv1.NetworkPolicyPeer {
		return []networkingv1.NetworkPolicyPeer{{PodSelector: pods, NamespaceSelector: namespaces}}
	}
	block := []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16", "10.2.0.0/16"}}}}
	udp := corev1.ProtocolUDP
	everyone := &metav1.LabelSelector{}
	for name, test := range map[string]struct {
		state     state
		direction direction
		want      []string
	}{
		"no peers and no ports let everything in":   {from(none), ingress, []string{"return"}},
		"a podSelector means the own namespace":     {from(peer(app("db"), nil)), ingress, []string{"ip saddr { 10.244.0.2 } return"}},
		"a namespaceSelector means all its pods":    {from(peer(nil, team("blue"))), ingress, []string{"ip saddr { 10.244.0.3, 10.244.0.4 } return"}},
		"both selectors have to fit":                {from(peer(app("db"), team("blue"))), ingress, []string{"ip saddr { 10.244.0.4 } return"}},
		"empty selectors mean every pod":            {from(peer(everyone, everyone)), ingress, []string{"ip saddr { 10.244.0.1, 10.244.0.2, 10.244.0.3, 10.244.0.4 } return"}},
		"a peer that nobody is lets nobody in":      {from(peer(app("gone"), nil)), ingress, nil},
		"excepted addresses are left out":           {from(block), ingress, []string{"ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 return"}},
		"a port without a protocol is TCP":          {from(none, tcp(intstr.FromInt32(80), 0)), ingress, []string{"tcp dport 80 return"}},
		"an endPort makes a range":                  {from(none, tcp(intstr.FromInt32(80), 90)), ingress, []string{"tcp dport 80-90 return"}},
		"a protocol without a port is all ports":    {from(none, networkingv1.NetworkPolicyPort{Protocol: &udp}), ingress, []string{"meta l4proto udp return"}},
		"an ingress port's name is the own pod's":   {from(none, tcp(intstr.FromString("http"), 0)), ingress, []string{"ip daddr . tcp dport { 10.244.0.1 . 8080 } return"}},
		"a name that no pod has opens nothing":      {from(none, tcp(intstr.FromString("grpc"), 0)), ingress, nil},
		"a name of another protocol opens nothing":  {to(none, tcp(intstr.FromString("dns"), 0)), egress, nil},
		"an egress port's name is the peers'":       {to(none, tcp(intstr.FromString("http"), 0)), egress, []string{"ip daddr . tcp dport { 10.244.0.1 . 8080, 10.244.0.3 . 9090 } return"}},
		"egress looks at where a packet goes":       {to(peer(app("db"), team("blue")), tcp(intstr.FromInt32(5432), 0)), egress, []string{"ip daddr { 10.244.0.4 } tcp dport 5432 return"}},
		"an IPv6 block is nobody here":              {to([]networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/8"}}}), egress, nil},
		"a block beside a selector is another peer": {from(append(peer(app("db"), nil), block[0])), ingress, []string{"ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 return", "ip saddr { 10.244.0.2 } return"}},
	} {
		t.Run(name, func(t *testing.T) {
			found := groups(test.state, test.direction)
			if len(found) != 1 {
				t.Fatalf("got %d groups of fenced pods, want 1", len(found))
			}
			got := groupRules(test.state, test.direction, found[0])
			if want := append(test.want, "counter drop"); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestPoliciesFenceOnlyTheDirectionsTheyName(t *testing.T) {
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	rules := []networkingv1.NetworkPolicyEgressRule{{}}
	for name, test := range map[string]struct {
		spec            networkingv1.NetworkPolicySpec
		ingress, egress bool
	}{
		"ingress is the default":           {networkingv1.NetworkPolicySpec{}, true, false},
		"egress rules imply egress":        {networkingv1.NetworkPolicySpec{Egress: rules}, true, true},
		"both are fenced when both listed": {networkingv1.NetworkPolicySpec{PolicyTypes: both}, true, true},
		"egress alone leaves ingress open": {networkingv1.NetworkPolicySpec{PolicyTypes: both[1:]}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			state := world(policy("a", "p", test.spec))
			if got := len(groups(state, ingress)) == 1; got != test.ingress {
				t.Errorf("ingress fenced: %v, want %v", got, test.ingress)
			}
			if got := len(groups(state, egress)) == 1; got != test.egress {
				t.Errorf("egress fenced: %v, want %v", got, test.egress)
			}
		})
	}
}

func TestPoliciesOfAPodAddUpAndLeaveOtherPodsAlone(t *testing.T) {
	deny := policy("a", "deny", networkingv1.NetworkPolicySpec{})
	open := policy("a", "open", networkingv1.NetworkPolicySpec{
		PodSelector: *app("web"),
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{tcp(intstr.FromInt32(80), 0)}}},
	})
	state := world(deny, open)
	found := groups(state, ingress)
	if len(found) != 2 {
		t.Fatalf("got %d groups, want those fenced by deny alone and by both", len(found))
	}
	if got, want := texts(addressesOf(found[0].pods)), []string{"10.244.0.2"}; !slices.Equal(got, want) {
		t.Errorf("deny alone fences %v, want %v", got, want)
	}
	if got, want := groupRules(state, ingress, found[1]), []string{"tcp dport 80 return", "counter drop"}; !slices.Equal(got, want) {
		t.Errorf("both policies allow %q, want %q", got, want)
	}
	for _, group := range found {
		for _, pod := range group.pods {
			if pod.namespace == "b" {
				t.Error("a policy fences a pod of another namespace")
			}
		}
	}
}

func TestTheScriptIsTheSameForTheSameState(t *testing.T) {
	state := from([]networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}})
	first := compile(state)
	for range 20 {
		if compile(state) != first {
			t.Fatal("two compilations of one state differ")
		}
	}
}

func TestPodsThatHaveEndedOrShareTheNodesNetworkAreNotFenced(t *testing.T) {
	ended := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	shared := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}
	for _, object := range []*corev1.Pod{ended, shared} {
		if _, networked := parsePod(object); networked {
			t.Errorf("%+v counts as a pod with a network", object)
		}
	}
	if _, networked := parsePod(&corev1.Pod{}); !networked {
		t.Error("a pod that starts does not count as one with a network")
	}
}

// nftables itself is the judge of the syntax. It only checks, but wants to be root for that.
func TestNftablesTakesTheScript(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Getuid() != 0 {
		t.Skip("needs nft and root")
	}
	everything := from(
		[]networkingv1.NetworkPolicyPeer{{PodSelector: app("db")}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
		tcp(intstr.FromInt32(80), 0), tcp(intstr.FromInt32(80), 90), tcp(intstr.FromString("http"), 0), networkingv1.NetworkPolicyPort{},
	)
	everything.policies = append(everything.policies, to(nil, tcp(intstr.FromString("http"), 0)).policies...)
	for name, state := range map[string]state{"everything": everything, "no policies": world(), "nothing": {podCIDR: netip.MustParsePrefix("10.244.0.0/16")}} {
		t.Run(name, func(t *testing.T) {
			nft := exec.Command("nft", "--check", "--file", "-")
			nft.Stdin = strings.NewReader(compile(state))
			if output, err := nft.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}
