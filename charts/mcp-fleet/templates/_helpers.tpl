{{/* Name of the Deployment, Service, ServiceAccount and Lease. Fixed, because gateways and certificates depend on it. */}}
{{- define "mcp-fleet.name" -}}mcp-fleet-operator{{- end }}

{{/* Labels that select the operator's pods. The network policies of the gateways use the same two. */}}
{{- define "mcp-fleet.selector" -}}
app.kubernetes.io/name: mcp-fleet
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object in the chart. */}}
{{- define "mcp-fleet.labels" -}}
{{ include "mcp-fleet.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
