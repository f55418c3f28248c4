{{/* The name of Deployment, Service, ServiceAccount and Lease. Fixed: gateways and certificates know it. */}}
{{- define "mcp-fleet.name" -}}mcp-fleet-operator{{- end }}

{{/* What selects the operator's pods; the gateways' policies use the same two labels. */}}
{{- define "mcp-fleet.selector" -}}
app.kubernetes.io/name: mcp-fleet
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object of the chart. */}}
{{- define "mcp-fleet.labels" -}}
{{ include "mcp-fleet.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
