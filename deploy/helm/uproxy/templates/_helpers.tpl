{{- define "uproxy.labels" -}}
app.kubernetes.io/name: uproxy
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "uproxy.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end }}

{{- define "uproxy.alongside" -}}
{{- if eq .Values.mode "alongside-kube-proxy" }}true{{ end -}}
{{- end }}

{{/* kube-proxy has 10256 and 10249. */}}
{{- define "uproxy.healthPort" -}}
{{ .Values.ports.health | default (ternary 10356 10256 (eq .Values.mode "alongside-kube-proxy")) }}
{{- end }}

{{- define "uproxy.metricsPort" -}}
{{ .Values.ports.metrics | default (ternary 10350 10249 (eq .Values.mode "alongside-kube-proxy")) }}
{{- end }}

{{/* Where uproxy looks, and so where its roles are. */}}
{{- define "uproxy.leaseNamespace" -}}
{{ (.Values.settings | default dict).UPROXY_LEASE_NAMESPACE | default .Release.Namespace | quote }}
{{- end }}

{{- define "uproxy.metallbNamespace" -}}
{{ (.Values.settings | default dict).UPROXY_METALLB_NAMESPACE | default "metallb-system" | quote }}
{{- end }}

{{/* What the ConfigMap has: every setting is a variable. Those of the user win. */}}
{{- define "uproxy.settings" -}}
{{- $metrics := printf "127.0.0.1:%s" (include "uproxy.metricsPort" .) -}}
{{- $found := dict
  "UPROXY_HEALTHZ_BIND_ADDRESS" (printf "0.0.0.0:%s" (include "uproxy.healthPort" .))
  "UPROXY_METRICS_BIND_ADDRESS" $metrics
  "UPROXY_URL" (printf "http://%s" $metrics) -}}
{{- with .Values.serviceProxyName | default (ternary "uproxy" "" (eq .Values.mode "alongside-kube-proxy")) }}
{{- $_ := set $found "UPROXY_SERVICE_PROXY_NAME" . }}
{{- end }}
{{- with .Values.apiServer.addresses }}
{{- $_ := set $found "UPROXY_APISERVER_ADDRESS" (join "," .) }}
{{- end }}
{{- if .Values.loadBalancer.metallbObjects }}
{{- $_ := set $found "UPROXY_LB" "metallb" }}
{{- end }}
{{- if .Values.unprivileged.enabled }}
{{- $_ := set $found "UPROXY_CLAIM_ADDRESSES" "never" }}
{{- $_ := set $found "UPROXY_PRESERVE_CLIENT_IP" "never" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- /* Numbers of a values file are floats, and 1000000 would become 1e+06. */}}
{{- $_ := set $found $name (ternary (int64 $value | toString) (toString $value) (kindIs "float64" $value)) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Values that Kubernetes would accept, but that would not work. */}}
{{- define "uproxy.check" -}}
{{- if and (not (include "uproxy.alongside" .)) (not .Values.apiServer.kubeletKubeconfig) (not .Values.apiServer.addresses) }}
{{- fail "without kube-proxy, uproxy cannot reach the API server at its ClusterIP: give apiServer.kubeletKubeconfig, the path of kubelet's kubeconfig on the nodes, or apiServer.addresses" }}
{{- end }}
{{- if and .Values.unprivileged.enabled (not (include "uproxy.alongside" .)) }}
{{- fail "unprivileged.enabled needs mode=alongside-kube-proxy: without privileges, uproxy serves no ClusterIP, not even that of the cluster's DNS" }}
{{- end }}
{{- $ports := list (include "uproxy.healthPort" .) (include "uproxy.metricsPort" .) }}
{{- if eq (first $ports) (last $ports) }}
{{- fail "ports.health and ports.metrics need ports of their own" }}
{{- end }}
{{- if and .Values.monitoring.enabled (has "10349" $ports) }}
{{- fail "with monitoring.enabled, kube-rbac-proxy has 10349: give ports.health or ports.metrics another one" }}
{{- end }}
{{- if and .Values.loadBalancer.metallbObjects (not .Values.loadBalancer.enabled) }}
{{- fail "loadBalancer.metallbObjects needs loadBalancer.enabled" }}
{{- end }}
{{- $settings := .Values.settings | default dict }}
{{- $lb := $settings.UPROXY_LB | default "never" | lower }}
{{- if and (not .Values.loadBalancer.enabled) (or $settings.UPROXY_LB_POOL (ne $lb "never")) }}
{{- fail "settings.UPROXY_LB and settings.UPROXY_LB_POOL need loadBalancer.enabled: without its roles, uproxy may hand out no address" }}
{{- end }}
{{- if and (eq $lb "metallb") (not .Values.loadBalancer.metallbObjects) }}
{{- fail "settings.UPROXY_LB=metallb needs loadBalancer.metallbObjects: without its roles, uproxy may read no pool" }}
{{- end }}
{{- if and .Values.loadBalancer.enabled (not .Values.loadBalancer.metallbObjects) (not $settings.UPROXY_LB) (not $settings.UPROXY_LB_POOL) }}
{{- fail "loadBalancer.enabled needs to know where addresses come from: settings.UPROXY_LB_POOL, settings.UPROXY_LB or loadBalancer.metallbObjects" }}
{{- end }}
{{- end }}
